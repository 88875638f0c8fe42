"""Serving from deployment/requirements.txt alone, in an environment that has nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from settings import ROOT
from tests.folders import Served, isolated_environment
from tests.messages import assert_failed
from tests.processes import run_program
from tests.running import run_api
from tests.test_schema import WINE
from tests.web import WEB
from tests.wines import make_bundle
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.bundle.bundle import COMPILED_FILE, select_bundle
from wine_quality_training.estimators import blend_grades
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.models import make_model

HEAVY = ("sklearn", "mlflow", "prefect", "pandas", "scipy", "xgboost")
FIRST_ANSWER = """
import asyncio, json, sys, time
import deployment.serve
from deployment.api.predict import Predict
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
    python, lock = str(environment / "bin" / "python"), str(ROOT / "deployment" / "requirements.txt")
    install = ["pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock]
    for command in (["venv", "--quiet", "--python", sys.executable, str(environment)], install):
        subprocess.run([sys.executable, "-m", "uv", *command], check=True)
    return python


@pytest.mark.clone
@pytest.mark.alone
def test_the_first_answer_comes_within_two_seconds_of_the_imports_and_without_scikit_learn(
    python: str, served: Served
) -> None:
    done = run_program(python, "-c", FIRST_ANSWER, json.dumps(WINE), env=served.environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answer"]["model"]["version"] == "1"
    assert found["seconds"] < 2
    assert [name for name in HEAVY if name in found["modules"]] == []


@pytest.fixture(params=["forest", "blend"])
def champion(request: pytest.FixtureRequest, tmp_path: Path, twin: WineData, twin_split: Split) -> Served:
    """The bundle of a champion as the pipeline makes it, 200 trees, or of a blend that has these trees."""
    wines, model = twin_split.train, make_model("OrdinalForestClassifier", seed=42)
    if request.param == "blend":
        model.set_params(model__classifier=blend_grades(model.named_steps["model"].classifier))
    pipeline = model.fit(feature_frame(wines), wines[TARGET])
    evaluation = Evaluation(request.param, LEAK_FREE, pipeline, (), {})
    models = tmp_path / "deployment" / "models"
    bundle = make_bundle(models, evaluation, twin, wines)
    assert (bundle / COMPILED_FILE).stat().st_size > 5_000_000
    select_bundle(bundle)
    return Served(models, isolated_environment(tmp_path))


@pytest.mark.clone
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which only Linux has")
def test_the_api_runs_in_that_environment_under_300_mb(python: str, champion: Served) -> None:
    with run_api(champion.environment, python) as (address, server):
        for _ in range(300):
            WEB.post(f"{address}/predict", json=WINE).raise_for_status()
        WEB.post(f"{address}/predict/batch", json=[WINE] * 1000).raise_for_status()
        assert WEB.get(f"{address}/docs").is_success
        status = Path(f"/proc/{server.pid}/status").read_text()
        kilobytes = int(status.split("VmRSS:")[1].split()[0])
        assert kilobytes < 300_000


@pytest.mark.clone
def test_a_bundle_with_only_a_pickle_is_refused_there_in_one_line(python: str, served: Served) -> None:
    (served.models / "current").write_text("3\n")
    done = run_program(python, "-m", "deployment.serve", env=served.environment)
    assert_failed(done, 3, "scikit-learn", "requirements.txt")
