"""What several tests share: wines, a finished pipeline, a running API."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import mlflow
import pandas as pd
import pytest
from playwright.sync_api import Browser, sync_playwright
from prefect.settings import PREFECT_API_URL, temporary_settings
from sklearn.ensemble import RandomForestClassifier

from commands import run_command
from experiment_tracking.runs.locks import hold_lock
from experiment_tracking.runs.store import open_store
from images.browser import QUIET, find_chromium
from orchestration.drill.surroundings import move_paths
from settings import ROOT
from tests.waiting import free_port, wait_for
from wine_data.reader import COLUMNS
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import ORIGINALS, TRAIN_FILE, VALIDATION_FILE, WineData, load_wines
from wine_data.split import Split, split_wines
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.compilation import compile_model
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.bundle.files import NOT_COMPILED, pickle_model, select_bundle, write_bundle
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.models import impute_before

REAL_DATA = os.environ.get("WINE_REAL_DATA", "")
NOWHERE = "http://127.0.0.1:1/"  # nothing listens on port 1
CHROMIUM = find_chromium()
hypothesis.settings.register_profile("ours", deadline=None)  # other tests run beside
hypothesis.settings.load_profile("ours")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: make system-packages installs it")
FEW = "few wines"
isolated_environment = move_paths
FULL_SIZE = [
    pytest.param("twin", marks=pytest.mark.full),
    pytest.param("uci", marks=[pytest.mark.full, pytest.mark.real_data]),
]
full_size = pytest.mark.parametrize("pipeline_run", FULL_SIZE, indirect=True)  # for what few wines cannot show


@dataclass(frozen=True)
class Store:
    """A tracking store with the folder of bundles that belongs to it."""

    folder: Path
    experiment_id: str

    @property
    def models(self) -> Path:
        return self.folder / "deployment" / "models"


@dataclass(frozen=True)
class Served:
    """Bundles to serve, and the environment to serve them in."""

    models: Path
    environment: dict[str, str]


class Receiver(HTTPServer):
    """Stands where a chat's webhook would be, and keeps what it is told."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Listener)
        self.told: list[dict[str, Any]] = []
        self.status = status
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/a-secret-word"


class Listener(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


# Groups that take longest, begun first, so that no process is left alone with one at the end.
LONGEST = (
    "test_monitoring_flow", "pipeline on uci", "pipeline on twin", "test_setup", "test_workflows", "test_team",
    "test_schedule", "test_registry", "test_drills", "test_cluster", "test_search", "pipeline on few wines",
)  # fmt: skip


def pytest_configure() -> None:
    """Let children end at ctrl-c, which a shell has a process in the background ignore, and with it its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups; pytest-randomly has shuffled by then
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(name_group(item), len(order)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(name_group(item)))
    if CHROMIUM is None and "GITHUB_ACTIONS" in os.environ:
        raise pytest.UsageError("there is no browser here, and on GitHub no test of pages may be skipped")
    if not REAL_DATA:
        skip = pytest.mark.skip(reason="WINE_REAL_DATA names no folder with the real files")
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(skip)


def name_group(item: pytest.Item) -> str:
    """Name what one process runs: the tests of a file, all tests on one run of the pipeline, or one notebook."""
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    if "pipeline_run" in given:
        return f"pipeline on {given['pipeline_run']}"
    return str(given.get("notebook", item.path.stem))


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The folder with the real files; tests that ask for it are marked real_data."""
    return Path(REAL_DATA)


@pytest.fixture(scope="session")
def twin() -> WineData:
    return load_as_default("twin")


@pytest.fixture(scope="session")
def twin_split(twin: WineData) -> Split:
    return split_wines(twin.train, twin.validation, folds=5, seed=42)


@pytest.fixture(scope="session")
def real_data(real_folder: Path) -> WineData:
    return load_as_default(str(real_folder))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> WineData:
    """Few wines, for what does not depend on how many there are."""
    return load_as_default(str(write_few_wines(tmp_path_factory.mktemp("small"))))


@pytest.fixture(scope="session")
def small_split(small: WineData) -> Split:
    return split_wines(small.train, small.validation, folds=2, seed=42)


@pytest.fixture(scope="session")
def empty_stores(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Databases of MLflow and Prefect without a run. Making them takes 4 s and 12 s, a copy none."""
    root = tmp_path_factory.getbasetemp()
    folder = (root if worker_id == "master" else root.parent) / "empty stores"  # one for all processes
    with hold_lock(folder.with_suffix(".lock")):
        if not folder.exists():
            partial = folder.with_suffix(".partial")  # a failure must not leave half of them for the next process
            home = partial / ".prefect"
            home.mkdir(parents=True, exist_ok=True)
            upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
            subprocess.run(upgrade, env=os.environ | {"PREFECT_HOME": str(home)}, capture_output=True, check=True)
            open_store(f"sqlite:///{partial / 'mlflow.db'}", partial / "mlartifacts")
            partial.rename(folder)
    return folder


@pytest.fixture
def store(empty_stores: Path, tmp_path: Path) -> Store:
    """An empty store of the test's own, opened."""
    return make_store(tmp_path, empty_stores)


@pytest.fixture(autouse=True)
def tracking_uri() -> Iterator[None]:
    """Have MLflow, which has one store a process, return to the store that a module's tests share."""
    uri = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(uri)


@pytest.fixture
def few_wines(twin: WineData) -> pd.DataFrame:
    return twin.train.head(20).copy()


@dataclass(frozen=True)
class PipelineRun:
    """A finished `python -m orchestration.flows` in a folder of its own."""

    folder: Path
    environment: dict[str, str]
    output: str

    def load_data(self) -> WineData:
        """Load the wines that it ran on."""
        return load_wines(self.environment["WINE_DATA"], 42, self.folder / "downloads", NOWHERE)

    @property
    def serving_models(self) -> Path:
        return self.folder / "deployment" / "models"

    @property
    def mlflow_uri(self) -> str:
        return self.environment["MLFLOW_TRACKING_URI"]


@pytest.fixture(scope="session")
def prefect(empty_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server for the flows of this process; the address of its API, for those of other processes.

    It does nothing for schedules and automations: no test asks that of it.
    """
    folder, port = tmp_path_factory.mktemp("prefect"), free_port()
    seed_store(folder, empty_stores)
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--no-services", "--port", str(port)],
        env=isolated_environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health", server, seconds=120)
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
            yield f"http://127.0.0.1:{port}/api"
    finally:
        server.terminate()
        server.wait(timeout=60)


@pytest.fixture(scope="session", params=[FEW, *FULL_SIZE])
def pipeline_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PipelineRun:
    """The whole pipeline, run once on each source, as the command that users run."""
    folder = tmp_path_factory.mktemp(f"pipeline on {request.param}")
    environment = isolated_environment(folder) | {"WINE_DATA": request.param}
    if request.param == FEW:
        seed_store(folder, request.getfixturevalue("empty_stores"))
        environment |= {"WINE_DATA": str(write_few_wines(folder / "wines")), "WINE_FOLDS": "2"}
    if request.param == "uci":
        (folder / "downloads").mkdir()
        for name in ORIGINALS.values():
            shutil.copy(Path(REAL_DATA) / name, folder / "downloads")
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.flows"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return PipelineRun(folder, environment, done.stdout)


@pytest.fixture(scope="session")
def api(pipeline_run: PipelineRun) -> Iterator[str]:
    """The address of a real server process on what the pipeline exported."""
    with run_api(pipeline_run.environment) as (address, _):
        yield address


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, twin: WineData, twin_split: Split) -> Path:
    """A folder with three bundles: 1 and 2 are small forests, 3 has no compiled form; 1 serves."""
    models = tmp_path_factory.mktemp("bundles") / "models"
    wines = twin_split.train
    for number, trees, compiles in (("1", 20, True), ("2", 10, True), ("3", 5, False)):
        forest = RandomForestClassifier(trees, random_state=1, n_jobs=1)
        pipeline = impute_before(forest).fit(feature_frame(wines), wines[TARGET])
        evaluation = Evaluation("RandomForestClassifier", LEAK_FREE, pipeline, (), {})
        make_bundle(models, evaluation, twin, wines, number, compiles)
    select_bundle(models / "1")
    return models


@pytest.fixture(scope="session")
def small_api(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server process on the first of those bundles; it takes 40 wines at once."""
    environment = isolated_environment(tmp_path_factory.mktemp("small api"))
    with run_api(environment, serving_models=bundles, batch_rows=40) as (address, _):
        yield address


@pytest.fixture(scope="module")  # for no longer: its event loop stands in the way of other tests' own
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def served(bundles: Path, tmp_path: Path) -> Served:
    """A copy of those bundles of the test's own, and the environment to serve them in."""
    models = tmp_path / "deployment" / "models"
    shutil.copytree(bundles, models)
    return Served(models, isolated_environment(tmp_path))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


def make_bundle(
    models: Path, evaluation: Evaluation, data: WineData, wines: pd.DataFrame, version: str = "1", compiles: bool = True
) -> Path:
    """Write the serving bundle of a model that was fitted on these wines."""
    named = {"name": "wine-quality", "version": version, "run_id": f"run{version}"}
    metadata = describe_model(evaluation, data, wines, **named)
    compiled = compile_model(evaluation.pipeline, metadata) if compiles else NOT_COMPILED
    return write_bundle(models, pickle_model(evaluation.pipeline), metadata, compiled)


@contextmanager
def run_api(
    environment: dict[str, str], python: str = sys.executable, **settings: object
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve as the command does, on a free port, for as long as the block lasts; yields address and process."""
    knobs = {f"WINE_{name.upper()}": str(value) for name, value in settings.items()} | {"WINE_PORT": str(free_port())}
    address = f"http://127.0.0.1:{knobs['WINE_PORT']}"
    server = subprocess.Popen([python, "-m", "deployment.serve"], cwd=ROOT, env=environment | knobs)
    try:
        wait_for(f"{address}/ready", server)
        yield address, server
    finally:
        server.terminate()
        assert server.wait(timeout=20) in (0, -15, -9)  # -9: the test killed it


def run_here(module: str, environment: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in this process, which has imported what it needs; what it leaves is what a process would."""
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command(find_command(module).main)
    return subprocess.CompletedProcess(
        [module, *arguments], int(ended.value.code or 0), output.getvalue(), errors.getvalue()
    )


def find_command(name: str) -> ModuleType:
    """The module that `python -m name` runs."""
    module = import_module(name)
    return import_module(f"{name}.__main__") if hasattr(module, "__path__") else module


def seed_store(folder: Path, empty_stores: Path) -> None:
    """Put empty stores into a folder, for a command that would take seconds to make them."""
    shutil.copytree(empty_stores, folder, dirs_exist_ok=True)
    (folder / "mlartifacts").mkdir(exist_ok=True)


def make_store(folder: Path, empty_stores: Path) -> Store:
    """Put empty stores into a folder and open MLflow's."""
    seed_store(folder, empty_stores)
    return Store(folder, open_store(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts"))


def run_at_once(
    script: str, arguments: Sequence[str], environment: dict[str, str]
) -> list[subprocess.CompletedProcess[str]]:
    """Run a script once an argument, all from the moment on that each has printed "ready" and reads a line."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, argument],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for argument in arguments
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=300) for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


def write_few_wines(folder: Path, wines: int = 1_500) -> Path:
    """Write a pair of so many distinct wines: all to validate on, and twice as many draws of them to train on."""
    originals = sample_twin(wines, seed=1)[list(COLUMNS)]
    validation = originals.assign(pH=originals["pH"].where(originals.index >= 10))
    folder.mkdir(parents=True, exist_ok=True)
    originals.sample(2 * wines, replace=True, random_state=1).to_csv(folder / TRAIN_FILE, index=False)
    validation.to_csv(folder / VALIDATION_FILE, index=False)
    return folder


def load_as_default(source: str) -> WineData:
    """Load a source with the default seed, and no network to turn to."""
    return load_wines(source, seed=42, downloads=Path("nowhere"), uci_url=NOWHERE)
