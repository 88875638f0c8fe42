"""Servers that wrk asks in turn, and their rates: serving_speed.py describes which and why."""

import json
import os
import pickle
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlflow
import pandas as pd

from commands import BadInputError
from deployment.predictor import load_predictor
from settings import ROOT
from tests.conftest import make_bundle
from tests.waiting import free_port, wait_for
from wine_data.schema import TARGET, WineQuality, feature_array, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import split_wines
from wine_quality_training.bundle.bundle import MODEL_FILE, select_bundle
from wine_quality_training.estimators import OrdinalClassifier, blend_grades
from wine_quality_training.evaluate import AS_PUBLISHED, LEAK_FREE, Evaluation
from wine_quality_training.models import impute_before, make_model

SEED, FOLDS = 42, 5
SERVER_CORE, CLIENT_CORE = "0", "1"
OURS, ORDINARY = "this API", "this API, ordinary routes"
RULE, BLEND = "this API, forest with its rule", "this API, blend"
NOOP, PLAIN, MLFLOW = "no-op route", "plain app", "mlflow models serve"
COLUMNS = ("server", "connections", "answers a second", "of the no-op", "p50", "p99", "p99 of the no-op's")
APPS = "tests.benchmarks.serving_apps"
CONNECTIONS = (1, 64)
BATCH = 1000
WRK = ["taskset", "-c", CLIENT_CORE, "wrk", "-t1"]
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


@contextmanager
def run_server(command: list[str], port: int, path: str, environment: dict[str, str]) -> Iterator[str]:
    """Run a server on its core for as long as the block lasts; yields its address."""
    command = ["taskset", "-c", SERVER_CORE, sys.executable, *command]
    environment = os.environ | environment
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}{path}", process, seconds=120)
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def ask(target: Target, connections: int, seconds: int) -> Measured:
    """Ask a server as fast as it answers, over so many connections. Raises BadInputError for a wrong answer."""
    options = ["--timeout", "30s", "-s", str(target.script), target.address]
    command = [*WRK, f"-c{connections}", f"-d{seconds}s", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
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


def measure_rounds(targets: list[Target], connections: int, rounds: int, seconds: int) -> dict[str, list[Measured]]:
    """Ask every target in turn, as often as there are rounds, every other time in the opposite order."""
    measured: dict[str, list[Measured]] = {target.name: [] for target in targets}
    for number in range(rounds):
        for target in targets if number % 2 == 0 else reversed(targets):
            found = ask(target, connections, seconds)
            measured[target.name].append(found)
            print(f"  round {number + 1}, {connections:>2} connections, {target.name}: {found.rate:,.0f}/s", flush=True)
    return measured


def measure_batches(name: str, address: str, models: Path, folder: Path, rounds: int) -> list[list[str]]:
    """Rows of the table: one wine in process, and wines a second in batches against the bare model's.

    The last of these says what single wines wait meanwhile.
    """
    model, wines = load_predictor(models), read_wines(folder)
    table = feature_array(wines[:BATCH])
    body = json.dumps([wine.model_dump() for wine in wines[:BATCH]])
    batch = Target("batch", f"{address}/predict/batch", write_script(folder, "batch", body))
    single = Target("single", f"{address}/predict", write_script(folder, "single", wines[0].model_dump_json()))
    ratios, rates, waits = [], [], []
    for _ in range(rounds):
        bare = statistics.median(timeit.repeat(lambda: model.predict_probabilities(table), number=1, repeat=20))
        rates.append(ask(batch, 1, 4).rate * BATCH)
        ratios.append(rates[-1] * bare / BATCH)
        others = [*WRK, "-c1", "-d6s", "-s", str(batch.script), batch.address]
        with subprocess.Popen(others, stdout=subprocess.DEVNULL):
            time.sleep(1)
            waits.append(ask(single, 1, 4).p99)
    singles = [timeit.timeit(partial(model.predict_one, wine), number=1) for wine in map(tuple, table)]
    one = [f"{1 / statistics.mean(singles):,.0f} wines", "", f"{statistics.median(singles) * 1000:.2f} ms", "", ""]
    many = [f"{statistics.median(rates):,.0f} wines", f"bare model's: {_spread(ratios)}", ""]
    waited = f"single wines meanwhile: {statistics.median(waits):.1f} ms"
    return [[f"{name}, in process", "", *one], [f"{name}, batches of {BATCH:,} wines", "1", *many, waited, ""]]


def tabulate(measured: dict[int, dict[str, list[Measured]]], batches: list[list[str]]) -> list[dict[str, str]]:
    """The figures as rows of one table."""
    rows = []
    for connections, by_name in measured.items():
        noop = by_name[NOOP]
        for name, found in by_name.items():
            ratios = [one.rate / other.rate for one, other in zip(found, noop, strict=True)]
            tails = [one.p99 / other.p99 for one, other in zip(found, noop, strict=True)]
            figures = [
                f"{statistics.median(one.rate for one in found):,.0f}",
                "1" if name == NOOP else _spread(ratios),
                f"{statistics.median(one.p50 for one in found):.2f} ms",
                f"{statistics.median(one.p99 for one in found):.2f} ms",
                "1" if name == NOOP else f"{statistics.median(tails):.2f}",
            ]
            rows.append([name, str(connections), *figures])
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows + batches]


def run_benchmark(data: WineData, rounds: int, seconds: int, with_mlflow: bool) -> list[dict[str, str]]:
    """Fit, start all servers, ask them, and stop them."""
    table = feature_frame(data.train.dropna().head(BATCH))
    wines = [WineQuality.model_validate(row) for row in table.to_dict("records")]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        published, rule, blend = export_models(folder, data)
        (folder / "wines.json").write_text(json.dumps([wine.model_dump() for wine in wines]))
        body = write_script(folder, "one", wines[0].model_dump_json())

        def start(label: str, command: list[str], path: str = "/docs", **environment: str) -> Target:
            port = free_port()
            command = [*UVICORN, str(port), *command] if command[0] != "-m" else command
            address = run_server(command, port, path, environment | {"WINE_PORT": str(port)})
            return Target(label, f"{stack.enter_context(address)}/predict", body)

        def start_ours(label: str, models: Path, *command: str) -> Target:
            log = f"sqlite:///{folder}/{label}.db"
            return start(label, list(command), "/health", WINE_SERVING_MODELS=str(models), WINE_LOG_URL=log)

        serve = ("-m", "deployment.serve")
        targets = [
            start(NOOP, [f"{APPS}:noop"]),
            start_ours(OURS, published.parent, *serve),
            start_ours(ORDINARY, published.parent, "--factory", f"{APPS}:make_ordinary"),
            start_ours(RULE, rule.parent, *serve),
            start_ours(BLEND, blend.parent, *serve),
            start(PLAIN, ["--factory", f"{APPS}:make_plain"], WINE_PICKLE=str(published / MODEL_FILE)),
        ]
        if with_mlflow:
            targets.append(_start_mlflow(stack, folder, published / MODEL_FILE, table.head(1)))
        measured = {number: measure_rounds(targets, number, rounds, seconds) for number in CONNECTIONS}
        batches = []
        for target, bundle in zip(targets[3:5], (rule, blend), strict=True):
            address = target.address.removesuffix("/predict")
            batches += measure_batches(target.name, address, bundle.parent, folder, rounds)
        return tabulate(measured, batches)


def read_wines(folder: Path) -> list[WineQuality]:
    """The wines that are asked about."""
    return [WineQuality.model_validate(wine) for wine in json.loads((folder / "wines.json").read_text())]


def export_models(folder: Path, data: WineData) -> list[Path]:
    """Write three bundles, each as the one that serves from its folder.

    The published forest, the leak-free forest with its rule, and the same forest in a blend.
    """
    train = split_wines(data.train, data.validation, FOLDS, SEED).train
    rule = make_model("OrdinalForestClassifier", SEED)
    blend = impute_before(OrdinalClassifier(blend_grades(rule.named_steps["model"].classifier)))
    models = {
        "published": (AS_PUBLISHED, make_model("RandomForestClassifier", SEED), data.train),
        "rule": (LEAK_FREE, rule, train),
        "blend": (LEAK_FREE, blend, train),
    }
    bundles = []
    for name, (protocol, model, wines) in models.items():
        evaluation = Evaluation(name, protocol, model.fit(feature_frame(wines), wines[TARGET]), (), {})
        bundles.append(make_bundle(folder / name, evaluation, data, wines))
        select_bundle(bundles[-1])
    return bundles


def _start_mlflow(stack: ExitStack, folder: Path, pickled: Path, wine: pd.DataFrame) -> Target:
    """MLflow's own server as its users get it; it calls scikit-learn for every request."""
    saved, port = folder / "mlflow", free_port()
    model = pickle.loads(pickled.read_bytes())
    options = {"serialization_format": "pickle", "pip_requirements": ["scikit-learn"], "input_example": wine}
    mlflow.sklearn.save_model(model, saved, **options)
    command = ["-m", "mlflow", "models", "serve", "--env-manager", "local", "-m", str(saved), "-p", str(port)]
    # MLflow looks for uvicorn on the path
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path}
    address = stack.enter_context(run_server(command, port, "/ping", environment))
    script = write_script(folder, "mlflow", f'{{"dataframe_split": {wine.to_json(orient="split", index=False)}}}')
    return Target(MLFLOW, f"{address}/invocations", script)


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})"
