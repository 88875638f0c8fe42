"""What several tests share: wines, a finished pipeline, a running API."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import mlflow
import pandas as pd
import pytest
from playwright.sync_api import Browser, sync_playwright
from prefect.settings import PREFECT_API_URL, temporary_settings
from sklearn.ensemble import RandomForestClassifier

from experiment_tracking.runs.locks import hold_lock
from experiment_tracking.runs.store import open_store
from images.browser import QUIET, find_chromium
from tests.folders import PipelineRun, Served, Store, isolated_environment, make_store, seed_store
from tests.processes import run_program
from tests.running import Receiver, run_api, run_at_once, run_here
from tests.waiting import free_port, wait_for
from tests.wines import NOWHERE, load_as_default, make_bundle, write_few_wines
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import ORIGINALS, WineData
from wine_data.split import Split, split_wines
from wine_quality_training.bundle.bundle import select_bundle
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.models import impute_before

REAL_DATA = os.environ.get("WINE_REAL_DATA", "")
CHROMIUM = find_chromium()
hypothesis.settings.register_profile("ours", deadline=None)  # other tests run beside
hypothesis.settings.load_profile("ours")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: make system-packages installs it")
FEW = "few wines"
FULL_SIZE = [
    pytest.param("twin", marks=pytest.mark.full),
    pytest.param("uci", marks=[pytest.mark.full, pytest.mark.real_data]),
]
full_size = pytest.mark.parametrize("pipeline_run", FULL_SIZE, indirect=True)  # for what few wines cannot show

# What tests import from here, of this module and of those that it imports; the rest is hooks and fixtures.
__all__ = ["NOWHERE", "PipelineRun", "Receiver", "Served", "Store", "full_size", "isolated_environment"]
__all__ += ["load_as_default", "make_bundle", "make_store", "name_group", "needs_browser", "run_api", "run_at_once"]
__all__ += ["run_here", "seed_store", "write_few_wines"]

# Groups that take longest, begun first, so that no process is left alone with one at the end.
LONGEST = ["test_monitoring_flow", "pipeline on uci", "pipeline on twin", "test_setup", "test_workflows", "test_team"]
LONGEST += ["test_schedule", "test_registry", "test_drills", "test_cluster", "test_search", "pipeline on few wines"]


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


@pytest.fixture(scope="session")
def prefect(empty_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server for the flows of this process; the address of its API, for those of other processes.

    It does nothing for schedules and automations: no test asks that of it.
    """
    folder, port = tmp_path_factory.mktemp("prefect"), free_port()
    seed_store(folder, empty_stores)
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-services", "--port", str(port)]
    environment, silence = isolated_environment(folder), subprocess.DEVNULL
    server = subprocess.Popen(command, env=environment, stdout=silence, stderr=silence)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health", server, seconds=120)
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
            yield f"http://127.0.0.1:{port}/api"
    finally:
        server.terminate()
        server.wait(timeout=60)


SECRET = "a-word-that-must-stay-secret"
SECRETS = ("WINE_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")


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
    secrets = dict.fromkeys(SECRETS, SECRET) | {"WINE_WEBHOOK": f"http://127.0.0.1:1/{SECRET}"}
    done = run_program(sys.executable, "-m", "orchestration.flows", env=environment | secrets, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return PipelineRun(folder, environment, done.stdout, done.stderr)


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
    with Receiver() as server:
        yield server
        server.shutdown()
