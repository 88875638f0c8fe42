"""Serving from deployment/requirements.txt alone, in an environment that has nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from settings import ROOT
from tests.conftest import Served, free_port, isolated_environment, wait_for
from tests.test_schema import WINE
from wine_data.schema import TARGET, feature_frame
from wine_data.sources import WineData
from wine_data.split import Sides
from wine_quality_training.bundle import pickle_model, select_bundle, write_bundle
from wine_quality_training.compilation import compile_model
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.model_facts import describe_model
from wine_quality_training.models import make_model

HEAVY = ("sklearn", "mlflow", "prefect", "pandas", "scipy", "xgboost")
FIRST_ANSWER = """
import asyncio, json, sys, time
import deployment.serve
from deployment.predict import Predict
from settings import load_settings

start = time.perf_counter()
service = deployment.serve.make_service(load_settings())
headers = {b"content-type": b"application/json"}

async def receive():
    return {"type": "http.request", "body": sys.argv[1].encode()}

answer = asyncio.run(Predict(service).answer("0" * 32, headers, receive, start))
print(json.dumps({"seconds": time.perf_counter() - start, "answer": json.loads(answer), "modules": list(sys.modules)}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has what deployment/requirements.txt names, and no more."""
    environment = tmp_path_factory.mktemp("serving") / "venv"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    python = str(environment / "bin" / "python")
    lock = ROOT / "deployment" / "requirements.txt"
    subprocess.run(
        [*uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(lock)], check=True
    )
    return python


@pytest.mark.clone
def test_the_first_answer_comes_within_two_seconds_of_the_imports_and_without_scikit_learn(
    python: str, served: Served
) -> None:
    done = subprocess.run(
        [python, "-c", FIRST_ANSWER, json.dumps(WINE)],
        cwd=ROOT, env=os.environ | served.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["answer"]["model"]["version"] == "1"
    assert told["seconds"] < 2
    assert [name for name in HEAVY if name in told["modules"]] == []


@pytest.fixture
def champion(tmp_path: Path, twin: WineData, twin_sides: Sides) -> Served:
    """The bundle of a champion as the pipeline makes it: 100 trees, 20 MB compiled."""
    wines = twin_sides.training
    pipeline = make_model("ExtraTreesClassifier", seed=42).fit(feature_frame(wines), wines[TARGET])
    evaluation = Evaluation("ExtraTreesClassifier", LEAK_FREE, pipeline, (), {})
    facts = describe_model(evaluation, twin, wines, name="wine-quality", version="1", run_id="run")
    compiled = compile_model(pipeline, facts)
    assert compiled.content is not None
    assert len(compiled.content) > 15_000_000
    models = tmp_path / "deployment" / "models"
    select_bundle(write_bundle(models, pickle_model(pipeline), facts, compiled))
    return Served(models, isolated_environment(tmp_path))


@pytest.mark.clone
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which only Linux has")
def test_the_api_runs_in_that_environment_under_250_mb(python: str, champion: Served) -> None:
    port = free_port()
    environment = os.environ | champion.environment | {"WINE_PORT": str(port)}
    server = subprocess.Popen([python, "-m", "deployment.serve"], cwd=ROOT, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/ready", server)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(300):
                client.post("/predict", json=WINE).raise_for_status()
            client.post("/predict/batch", json=[WINE] * 1000).raise_for_status()
            assert client.get("/docs").is_success
        lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        print(f"{resident / 1000:.0f} MB")
        assert resident < 250_000
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.mark.clone
def test_a_bundle_with_only_a_pickle_is_refused_there_in_one_line(python: str, served: Served) -> None:
    (served.models / "current").write_text("3\n")
    done = subprocess.run(
        [python, "-m", "deployment.serve"],
        cwd=ROOT, env=os.environ | served.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "scikit-learn is not installed" in done.stderr
    assert "Traceback" not in done.stderr
