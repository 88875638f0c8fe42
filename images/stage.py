"""What stands before the camera: every server of the project with real data, in a temporary folder of its own.

Each part is started when a picture first asks for it, with what it needs, and all of them are ended together.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import mlflow
from prefect.client.orchestration import SyncPrefectClient
from rich.console import Console

from commands import DONE, FINDING, NotThereError
from deployment.api.server_process import find_free_ports, run_server, wait_until
from deployment.prediction_log.reader import count_answers
from experiment_tracking.runs.store import EXPERIMENT, find_experiment, open_store
from images.files import WIDTH
from monitoring.simulate.drifts import Drift
from monitoring.simulate.traffic import Traffic, sample_drifted, send_wines
from orchestration.drill.steps import await_flow_run
from settings import ROOT, Settings
from wine_data.schema import FEATURES

CHALLENGER_MODEL = "RandomForestClassifier"
WINDOW, TRIALS, LOAD_SECONDS = 500, 12, 40
COMMAND_SECONDS, FLOW_SECONDS = 1800.0, 1800.0  # a busy machine takes three times as long
NORMAL, VINTAGE = Drift("none"), Drift("shift", "alcohol", 1.0)
TRAFFIC = ((NORMAL, 4), (VINTAGE, 2))  # windows of each
RATE = WINDOW / 5  # wines a second: windows end seconds apart, as their marks tell
DEVELOPER = {"user.name": "A developer", "user.email": "developer@example.org"}


class Stage:
    """The servers and what they were asked to do; a property is the address, id or file of what it starts.

    What needs another part first asserts it, and so starts it.
    """

    def __init__(self, folder: Path, settings: Settings, console: Console) -> None:
        """Choose places and ports; nothing is started yet."""
        self.folder, self.settings, self.console = folder, settings, console
        self.ports = dict(zip(("api", "prefect", "mlflow"), find_free_ports(3), strict=True))
        self.environment = self._make_environment()
        self._servers = ExitStack()

    def __enter__(self) -> "Stage":
        """Begin; servers that are started from here on are ended with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every server that was started, the last first."""
        self._servers.close()

    @cached_property
    def prefect(self) -> str:
        """A Prefect server with the project's deployments and a worker; the address of its pages."""
        self._servers.callback(self.run, "orchestration.services", "stop")
        for order in ("prefect", "deploy", "worker"):
            self.run("orchestration.services", order)
        return f"http://127.0.0.1:{self.ports['prefect']}"

    @cached_property
    def training(self) -> str:
        """A run of the deployment `train`, which left a champion; its id."""
        return self._run_deployment("wine-quality-pipeline/train", {"source": self.environment["WINE_DATA"]})

    @cached_property
    def versions(self) -> str:
        """A second version, which the gate was asked to let in and refused; the run that it comes from."""
        assert self.training
        self._open_store()
        run_id = self.find_run(CHALLENGER_MODEL)
        self.run("experiment_tracking.registry", "register", run_id)
        self.run("experiment_tracking.registry", "promote", ends=(DONE, FINDING))
        return run_id

    @cached_property
    def runs(self) -> str:
        """A search and a comparison of logging by hand with autolog beside the pipeline's runs; its experiment's id."""
        assert self.versions
        self.run("experiment_tracking.search", "--trials", str(TRIALS), "--task", "regressor")
        self.run("images.log_twice")
        return self._open_store()

    @cached_property
    def mlflow(self) -> str:
        """An MLflow server on the store of the runs; its address."""
        assert self.runs
        return self._serve("experiment_tracking.pages", self.ports["mlflow"], "/health")

    @cached_property
    def api(self) -> str:
        """The API with the champion; its address."""
        assert self.training
        return self._serve("deployment.serve", self.ports["api"], "/ready")

    @cached_property
    def traffic(self) -> int:
        """Windows of wines asked of that API, normal ones and then a hot vintage; how many wines."""
        for seed, (drift, windows) in enumerate(TRAFFIC, start=1):
            wines = sample_drifted(drift, windows * WINDOW, seed)
            with self.console.status(f"Asking for {len(wines):,} wines, drift: {drift.kind}"):
                send_wines(self.api, wines, Traffic(labels=0.5, delay=WINDOW // 2, rate=RATE, seed=seed))
        count = sum(windows for _, windows in TRAFFIC) * WINDOW
        wait_until(lambda: count_answers(self.environment["WINE_LOG_URL"]) >= count, "the log to have every answer")
        return count

    @cached_property
    def monitoring(self) -> Path:
        """The deployments `score` and `monitor`, run on that traffic; the folder of monitoring's pages."""
        assert self.traffic
        to_score = self.folder / "to_score"
        to_score.mkdir()
        sample_drifted(NORMAL, 2_000, seed=9)[list(FEATURES)].to_csv(to_score / "wines.csv", index=False)
        self._run_deployment("wine-quality-batch/score", {})
        self._run_deployment("wine-quality-monitoring/monitor", {"retrain": False})
        self.run("monitoring.page")
        return self.folder / "reports"

    @cached_property
    def load(self) -> Path:
        """The report of a load test, after monitoring has looked: its questions are in the same log."""
        assert self.monitoring
        self.run("deployment.load", "--users", "10", "--seconds", str(LOAD_SECONDS))
        return next((self.folder / "load_reports").glob("*/report.html"))

    @cached_property
    def figures(self) -> Path:
        """The figures of a training of all models under both protocols; their folder."""
        self.run("wine_quality_training.train")
        return self.folder / "candidates" / "figures"

    @cached_property
    def drill(self) -> Path:
        """The picture of a drill."""
        self.run("orchestration.drill", ends=(DONE, FINDING))
        return self.folder / "reports" / "drill.png"

    def run(self, module: str, *arguments: str, ends: Sequence[int] = (DONE,)) -> str:
        """Run a command of the project to its end; return what it printed. Raises NotThereError where it fails."""
        name = " ".join((module, *arguments))
        start = time.monotonic()
        with self.console.status(f"python -m {name}"):
            try:
                done = subprocess.run(
                    [sys.executable, "-m", module, *arguments],
                    cwd=ROOT,
                    env=self.environment,
                    capture_output=True,
                    text=True,
                    timeout=COMMAND_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise NotThereError(f"python -m {name} did not end within {COMMAND_SECONDS:g} s") from error
        if done.returncode not in ends:
            raise NotThereError(f"python -m {name} ended with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
        self.console.print(f"{time.monotonic() - start:5.0f} s  python -m {name}")
        return done.stdout

    def find_run(self, name: str) -> str:
        """The id of the newest tracked run with a name, in the store that is open."""
        found = mlflow.MlflowClient().search_runs(
            [find_experiment(EXPERIMENT).experiment_id], f"attributes.run_name = '{name}'", max_results=1
        )
        return str(found[0].info.run_id)

    def _make_environment(self) -> dict[str, str]:
        """The environment of here, with every place and port of the project moved to the stage's own."""
        moved = ("WINE_", "PREFECT_", "MLFLOW_", "GIT_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(moved)}
        prefect_port = self.ports["prefect"]
        return (
            inherited
            | _configure_git()
            | {
                "WINE_DATA": self._place_wines(),
                "WINE_DOWNLOADS": str(self.settings.downloads),
                "WINE_UCI_URL": self.settings.uci_url,
                "WINE_SEED": str(self.settings.seed),
                "WINE_FOLDS": str(self.settings.folds),
                "WINE_WINDOW_ROWS": str(WINDOW),
                "WINE_PORT": str(self.ports["api"]),
                "WINE_MLFLOW_PORT": str(self.ports["mlflow"]),
                "WINE_PREFECT_PORT": str(prefect_port),
                "WINE_LOG_URL": f"sqlite:///{self.folder / 'predictions.db'}",
                "WINE_MLFLOW_ARTIFACTS": str(self.folder / "mlartifacts"),
                "WINE_SERVING_MODELS": str(self.folder / "models"),
                "WINE_TRAINING_MODELS": str(self.folder / "candidates"),
                "WINE_SNAPSHOTS": str(self.folder / "snapshots"),
                "WINE_AUDIT_FIGURE": str(self.folder / "audit.png"),
                "WINE_BATCH_WINES": str(self.folder / "to_score"),
                "WINE_BATCH_ANSWERS": str(self.folder / "answers"),
                "WINE_LOAD_REPORTS": str(self.folder / "load_reports"),
                "WINE_LOAD_P95": "60000",  # this is no measurement
                "WINE_MONITORING_REPORTS": str(self.folder / "reports"),
                "MATPLOTLIBRC": str(self._write_resolution()),
                "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder / 'mlflow.db'}",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "1",
                "PREFECT_HOME": str(self.folder / ".prefect"),
                "PREFECT_API_URL": f"http://127.0.0.1:{prefect_port}/api",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_WORKER_QUERY_SECONDS": "2",
            }
        )

    def _place_wines(self) -> str:
        """The source of the wines; a folder of the user's under another name, as pictures show it."""
        source = self.settings.data
        if not Path(source).expanduser().is_dir():
            return source
        link = self.folder / "wine_data"
        link.symlink_to(Path(source).expanduser().resolve())
        return str(link)

    def _write_resolution(self) -> Path:
        """Let a figure of ten inches, as the project draws them, be as wide as a picture."""
        path = self.folder / "matplotlibrc"
        path.write_text(f"savefig.dpi: {WIDTH / 10:g}\n")
        return path

    def _open_store(self) -> str:
        return open_store(self.environment["MLFLOW_TRACKING_URI"], self.folder / "mlartifacts")

    def _serve(self, module: str, port: int, path: str) -> str:
        """Start a server in a process of its own, and wait until it answers; return its address."""
        address, log = f"http://127.0.0.1:{port}", self.folder / f"{module}.log"
        with self.console.status(f"{module} starts"):
            self._servers.enter_context(run_server(module, address + path, self.environment, log))
        self.console.print(f"         {module} answers on {address}")
        return address

    def _run_deployment(self, name: str, parameters: dict[str, object]) -> str:
        """Let the worker run a deployment, and wait for its end; return the id of the flow run."""
        start = time.monotonic()
        with SyncPrefectClient(f"{self.prefect}/api") as client:  # it asks again where the server is busy
            deployment = client.read_deployment_by_name(name)
            run_id = client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id
            with self.console.status(f"Prefect runs {name} {parameters or ''}"):
                state = await_flow_run(client, run_id, FLOW_SECONDS)
        if not state.is_completed():
            log = (self.folder / ".prefect" / "worker.log").read_text()
            raise NotThereError(f"the flow run of {name} is {state.name}:\n{log[-3000:]}")
        self.console.print(f"{time.monotonic() - start:5.0f} s  Prefect's {name} {parameters or ''}")
        return str(run_id)


def _configure_git() -> dict[str, str]:
    """The person whom runs name, for git to tell: pictures are to show the same one wherever they are taken."""
    pairs = list(enumerate(DEVELOPER.items()))
    keys = {f"GIT_CONFIG_KEY_{number}": key for number, (key, _) in pairs}
    values = {f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in pairs}
    return {"GIT_CONFIG_COUNT": str(len(pairs))} | keys | values
