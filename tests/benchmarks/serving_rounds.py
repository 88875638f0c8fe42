"""Servers that are asked in turn by wrk, and what they answer in a second: serving_speed.py says which and why."""

import json
import os
import pickle
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from commands import BadInputError
from deployment.predictor import load_predictor
from settings import ROOT
from tests.conftest import make_bundle
from tests.waiting import free_port, wait_for
from wine_data.schema import TARGET, WineQuality, feature_array, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split, split_wines
from wine_quality_training.bundle.files import MODEL_FILE, select_bundle
from wine_quality_training.evaluate import AS_PUBLISHED, Evaluation, evaluate_leak_free
from wine_quality_training.models import make_model

SEED, FOLDS = 42, 5
SERVER_CORE, CLIENT_CORE = "0", "1"
OURS, CHAMPION, NOOP, PLAIN, MLFLOW = (
    "this API",
    "this API, champion",
    "no-op route",
    "plain app",
    "mlflow models serve",
)
CONNECTIONS = (1, 64)
BATCH = 1000
UVICORN = ["-m", "uvicorn", "--log-level", "warning", "--no-access-log", "--port"]
REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format('{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"errors":%d}', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Measured:
    """One run of wrk: answers a second, and milliseconds that half and 99 % of them took at most."""

    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Target:
    """A server to ask, and what to ask of it."""

    name: str
    address: str
    script: Path


def export_model(models: Path, data: WineData, evaluation: Evaluation) -> Path:
    """Write the bundle of a fitted model and make it the one that serves."""
    fitted_on = data.train if evaluation.protocol == AS_PUBLISHED else split(data).train
    bundle = make_bundle(models, evaluation, data, fitted_on)
    select_bundle(bundle)
    return bundle


def split(data: WineData) -> Split:
    """The divide that all of the project goes by."""
    return split_wines(data.train, data.validation, FOLDS, SEED)


def fit_as_published(data: WineData) -> Evaluation:
    """The published forest, on the whole train file."""
    name = "RandomForestClassifier"
    pipeline = make_model(name, SEED).fit(feature_frame(data.train), data.train[TARGET])
    return Evaluation(name, AS_PUBLISHED, pipeline, (), {})


@contextmanager
def run_server(command: list[str], port: int, path: str, environment: dict[str, str]) -> Iterator[str]:
    """Run a server on its core for as long as the block lasts; yields its address."""
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, sys.executable, *command],
        cwd=ROOT, env=os.environ | environment, start_new_session=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}{path}", process, seconds=120)
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def ask(target: Target, connections: int, seconds: float) -> Measured:
    """Ask a server as fast as it answers, over so many connections. Raises BadInputError for a wrong answer."""
    done = subprocess.run(
        ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s",
         "-s", str(target.script), target.address],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    if report["errors"]:
        raise BadInputError(f"{target.name} gave {report['errors']} wrong answers")
    return Measured(report["requests"] / report["seconds"], report["p50"], report["p99"])


def write_script(folder: Path, name: str, body: str) -> Path:
    """A script for wrk that POSTs one body."""
    path = folder / f"{name}.lua"
    headers = 'wrk.headers["Content-Type"] = "application/json"'
    path.write_text(f"wrk.method = 'POST'\n{headers}\nwrk.body = [==[{body}]==]\n{REPORT}")
    return path


def measure_rounds(targets: list[Target], connections: int, rounds: int, seconds: float) -> dict[str, list[Measured]]:
    """Ask every target in turn, as often as there are rounds, every other time in the opposite order."""
    measured: dict[str, list[Measured]] = {target.name: [] for target in targets}
    for number in range(rounds):
        for target in targets if number % 2 == 0 else reversed(targets):
            found = ask(target, connections, seconds)
            measured[target.name].append(found)
            print(f"  round {number + 1}, {connections:>2} connections, {target.name}: {found.rate:,.0f}/s", flush=True)
    return measured


def measure_batches(address: str, models: Path, wines: list[WineQuality], folder: Path, rounds: int) -> list[str]:
    """Rows a second in batches of 1,000 against the bare engine's, and what single wines wait meanwhile."""
    engine = load_predictor(models)
    table = feature_array(wines[:BATCH])
    body = json.dumps([wine.model_dump() for wine in wines[:BATCH]])
    batch = Target("batch", f"{address}/predict/batch", write_script(folder, "batch", body))
    single = Target("single", f"{address}/predict", write_script(folder, "single", wines[0].model_dump_json()))
    ratios, rates, waits = [], [], []
    for _ in range(rounds):
        bare = BATCH / _time(lambda: engine.predict_probabilities(table), 20)
        rate = ask(batch, 1, 4).rate * BATCH
        rates.append(rate)
        ratios.append(rate / bare)
        with ExitStack() as stack:
            others = subprocess.Popen(
                ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", "-c1", "-d6s", "-s", str(batch.script), batch.address],
                stdout=subprocess.DEVNULL,
            )
            stack.callback(others.wait)
            time.sleep(1)
            waits.append(ask(single, 1, 4).p99)
    return [f"{statistics.median(rates):,.0f}", _spread(ratios), f"{statistics.median(waits):.1f} ms"]


def tabulate(measured: dict[int, dict[str, list[Measured]]], batches: list[str]) -> list[dict[str, str]]:
    """The figures as rows of one table."""
    rows = []
    for connections, by_name in measured.items():
        noop = by_name[NOOP]
        for name, found in by_name.items():
            ratios = [one.rate / other.rate for one, other in zip(found, noop, strict=True)]
            tails = [one.p99 / other.p99 for one, other in zip(found, noop, strict=True)]
            rows.append(
                {
                    "server": name,
                    "connections": str(connections),
                    "answers a second": f"{statistics.median(one.rate for one in found):,.0f}",
                    "of the no-op": "1" if name == NOOP else _spread(ratios),
                    "p50": f"{statistics.median(one.p50 for one in found):.2f} ms",
                    "p99": f"{statistics.median(one.p99 for one in found):.2f} ms",
                    "p99 of the no-op's": "1" if name == NOOP else f"{statistics.median(tails):.2f}",
                }
            )
    rate, ratio, wait = batches
    rows.append(
        {
            "server": f"{OURS}, batches of {BATCH:,} wines", "connections": "1", "answers a second": f"{rate} wines",
            "of the no-op": f"bare engine's: {ratio}", "p50": "", "p99": f"single wines meanwhile: {wait}",
            "p99 of the no-op's": "",
        }
    )  # fmt: skip
    return rows


def run_benchmark(data: WineData, rounds: int, seconds: float, with_mlflow: bool) -> list[dict[str, str]]:
    """Fit, start all servers, ask them, and stop them."""
    table = feature_frame(data.train.dropna().head(BATCH))
    wines = [WineQuality.model_validate(row) for row in table.to_dict("records")]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        published = export_model(folder / "published", data, fit_as_published(data))
        champion = "ExtraTreesClassifier"
        export_model(folder / "champion", data, evaluate_leak_free(champion, make_model(champion, SEED), split(data)))
        body = write_script(folder, "one", wines[0].model_dump_json())

        def start(label: str, command: list[str], port: int, path: str = "/docs", **environment: str) -> Target:
            address = stack.enter_context(run_server(command, port, path, environment))
            return Target(label, f"{address}/predict", body)

        def start_ours(label: str, models: Path) -> Target:
            port = free_port()
            log = f"sqlite:///{models}/predictions.db"
            knobs = {"WINE_PORT": str(port), "WINE_SERVING_MODELS": str(models), "WINE_LOG_URL": log}
            return start(label, ["-m", "deployment.serve"], port, "/ready", **knobs)

        ours, its_champion = start_ours(OURS, folder / "published"), start_ours(CHAMPION, folder / "champion")
        port = free_port()
        noop = start(NOOP, [*UVICORN, str(port), "tests.benchmarks.serving_apps:noop"], port)
        port = free_port()
        factory = "tests.benchmarks.serving_apps:make_plain"
        plain = start(PLAIN, [*UVICORN, str(port), "--factory", factory], port, WINE_PICKLE=str(published / MODEL_FILE))
        targets = [noop, ours, its_champion, plain]
        if with_mlflow:
            targets.append(_start_mlflow(stack, folder, published / MODEL_FILE, table.head(1)))
        measured = {number: measure_rounds(targets, number, rounds, seconds) for number in CONNECTIONS}
        address = ours.address.removesuffix("/predict")
        return tabulate(measured, measure_batches(address, folder / "published", wines, folder, rounds))


def _start_mlflow(stack: ExitStack, folder: Path, pickled: Path, wine: pd.DataFrame) -> Target:
    """MLflow's own server as its users get it; it calls scikit-learn for every request."""
    model, port = folder / "mlflow", free_port()
    mlflow.sklearn.save_model(
        pickle.loads(pickled.read_bytes()), model, serialization_format="pickle", pip_requirements=["scikit-learn"],
        input_example=wine,
    )  # fmt: skip
    command = ["-m", "mlflow", "models", "serve", "--env-manager", "local", "-m", str(model), "-p", str(port)]
    # MLflow looks for uvicorn on the path
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path}
    address = stack.enter_context(run_server(command, port, "/ping", environment))
    script = write_script(folder, "mlflow", f'{{"dataframe_split": {wine.to_json(orient="split", index=False)}}}')
    return Target(MLFLOW, f"{address}/invocations", script)


def _time(work: Callable[[], object], times: int) -> float:
    """Median seconds of some work."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})"
