"""The stage for the pictures: every server of the project with real data, in its own temporary folder.

Each part starts when a picture first needs it, together with the parts it depends on. All of them stop together.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import mlflow
from rich.console import Console

from commands import DONE, FINDING, NotThereError
from deployment.api.server_process import HOST, run_server, wait_until
from deployment.prediction_log.reader import count_answers
from experiment_tracking.runs.autolog import compare_logging
from experiment_tracking.runs.store import EXPERIMENT, find_experiment, open_store
from images.browser import WIDTH
from monitoring.simulate.drifts import Drift
from monitoring.simulate.traffic import Traffic, sample_drifted, send_wines
from orchestration.drill.surroundings import move_ports, run_module
from settings import Settings, load_settings, move_paths
from wine_data.schema import FEATURES
from wine_data.sources.load import load_wines
from wine_data.split import split_wines

WINDOW, TRIALS, ROUNDS, LOAD_SECONDS = 500, 12, 100, 40
FLOW_SECONDS = 1800.0  # a busy machine is three times slower
NORMAL, VINTAGE = Drift("none"), Drift("shift", "alcohol", 1.0)
TRAFFIC = ((NORMAL, 4), (VINTAGE, 2))  # windows of each
RATE = WINDOW / 5  # wines per second: windows end seconds apart, as the labels of the plots show


class Stage(ExitStack):
    """The servers and their work; each property starts one part, and is its address, id or file.

    A part that depends on another one asserts that property, which starts it. All servers stop when the block ends.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        """Choose folders and ports, for this process too, without starting anything."""
        super().__init__()
        self.folder, self.console = folder, console
        os.environ.update(make_environment(folder, load_settings()))
        self.settings = load_settings()

    @cached_property
    def prefect(self) -> str:
        """A Prefect server with the project's deployments and a worker; the address of its pages."""
        self.callback(self.run, "orchestration.services", "stop")
        for order in ("prefect", "deploy", "worker"):
            self.run("orchestration.services", order)
        return f"http://{HOST}:{self.settings.prefect_port}"

    @cached_property
    def training(self) -> str:
        """A run of the deployment `train`, which made a champion; its id."""
        return self._run_deployment("wine-quality-pipeline/train", {"source": self.settings.data})

    @cached_property
    def runs(self) -> str:
        """The id of an experiment: the pipeline's runs, a refused version, a search, and one run logged twice."""
        assert self.training
        experiment_id = open_store(self.settings.mlflow_uri, self.settings.mlflow_artifacts)
        self.run("experiment_tracking.registry", "register", self.find_run("RandomForestClassifier"))
        self.run("experiment_tracking.registry", "promote", ends=(DONE, FINDING))  # the gate refuses it
        self.run("experiment_tracking.search", "--trials", str(TRIALS), "--task", "regressor")
        given = self.settings
        data = load_wines(given.data, given.seed, given.downloads, given.uci_url, given.wine_type)
        split = split_wines(data.train, data.validation, self.settings.folds, self.settings.seed)
        compare_logging(experiment_id, data, split, self.settings.seed, ROUNDS)
        return experiment_id

    @cached_property
    def mlflow(self) -> str:
        """An MLflow server for the store of the runs; its address."""
        assert self.runs
        return self._serve("experiment_tracking.pages", self.settings.mlflow_port, "/health")

    @cached_property
    def api(self) -> str:
        """The API with the champion; its address."""
        assert self.training
        return self._serve("deployment.serve", self.settings.port, "/ready")

    @cached_property
    def monitoring(self) -> Path:
        """The folder of monitoring's pages, after normal traffic, a hot vintage, and a batch of files."""
        for seed, (drift, windows) in enumerate(TRAFFIC, start=1):
            wines = sample_drifted(drift, windows * WINDOW, seed)
            self.console.print(f"asking for {len(wines):,} wines, drift: {drift.kind}")
            send_wines(self.api, wines, Traffic(labels=0.5, delay=WINDOW // 2, rate=RATE, seed=seed))
        count = sum(windows for _, windows in TRAFFIC) * WINDOW
        wait_until(lambda: count_answers(self.settings.log_url) >= count, "the log to have every answer")
        to_score = Path(self.settings.batch_wines)
        to_score.mkdir()
        sample_drifted(NORMAL, 2_000, seed=9)[list(FEATURES)].to_csv(to_score / "wines.csv", index=False)
        self._run_deployment("wine-quality-batch/score", {})
        self._run_deployment("wine-quality-monitoring/monitor", {"retrain": False})
        self.run("monitoring.page")
        return self.settings.monitoring_reports

    @cached_property
    def load(self) -> Path:
        """The report of a load test, run after monitoring."""
        assert self.monitoring
        self.run("deployment.load", "--users", "10", "--seconds", str(LOAD_SECONDS))
        return next(self.settings.load_reports.glob("*/report.html"))

    @cached_property
    def figures(self) -> Path:
        """The folder of the figures of a training of all models under both protocols."""
        self.run("wine_quality_training.train")
        return self.settings.training_models / "figures"

    @cached_property
    def drill(self) -> Path:
        """The picture of a drill."""
        self.run("orchestration.drill", ends=(DONE, FINDING))
        return self.settings.monitoring_reports / "drill.png"

    def run(self, *command: str, ends: Sequence[int] = (DONE,)) -> None:
        """Run a command of the project to its end. Raises NotThereError if it fails."""
        self.console.print(f"python -m {' '.join(command)}")
        run_module(os.environ, self.folder / "commands.log", *command, ends=ends)

    def find_run(self, name: str) -> str:
        """The id of the newest tracked run with a name, in the open store."""
        found = mlflow.MlflowClient().search_runs(
            [find_experiment(EXPERIMENT).experiment_id], f"attributes.run_name = '{name}'", max_results=1
        )
        return str(found[0].info.run_id)

    def find_flow_run(self, flow: str) -> str:
        """The id of the first run of a flow."""
        assert self.training
        question = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC", "limit": 1}
        answer = httpx.post(f"{self.prefect}/api/flow_runs/filter", json=question, timeout=60)
        return str(answer.raise_for_status().json()[0]["id"])

    def _serve(self, module: str, port: int, path: str) -> str:
        """Start a server as a child process, and wait until it responds; return its address."""
        address = f"http://{HOST}:{port}"
        self.console.print(f"python -m {module}")
        self.enter_context(run_server(module, address + path, os.environ, self.folder / f"{module}.log"))
        return address

    def _run_deployment(self, name: str, parameters: dict[str, object]) -> str:
        """Run a deployment on the worker, and wait for its end; return the id of the flow run."""
        assert self.prefect
        self.console.print(f"Prefect runs {name} {parameters or ''}")

        from prefect.deployments import run_deployment  # only after the environment is set

        options: dict[str, Any] = {"parameters": parameters, "timeout": FLOW_SECONDS, "poll_interval": 2}
        with ThreadPoolExecutor(1) as thread:  # this thread has the browser's event loop, where Prefect would not wait
            run: Any = thread.submit(run_deployment, name, **options).result()
        if not run.state.is_completed():
            log = (self.folder / ".prefect" / "worker.log").read_text()
            raise NotThereError(f"the flow run of {name} is {run.state.name}:\n{log[-3000:]}")
        return str(run.id)


def make_environment(folder: Path, settings: Settings) -> dict[str, str]:
    """The environment of the stage: its own folders and ports; the user's wines, seed and folds."""
    source, figures = Path(settings.data).expanduser(), folder / "matplotlibrc"
    if source.is_dir():
        (folder / "wine_data").symlink_to(source.resolve())  # so pictures do not show the real path
    figures.write_text(f"savefig.dpi: {WIDTH / 10:g}\n")  # a figure ten inches wide is as wide as a picture
    return (
        move_paths(folder)
        | move_ports()
        | {
            "WINE_DATA": str(folder / "wine_data") if source.is_dir() else settings.data,
            "WINE_DOWNLOADS": str(settings.downloads),
            "WINE_UCI_URL": settings.uci_url,
            "WINE_SEED": str(settings.seed),
            "WINE_FOLDS": str(settings.folds),
            "WINE_WINDOW_ROWS": str(WINDOW),
            "WINE_LOAD_P95": "60000",  # not a measurement
            "MATPLOTLIBRC": str(figures),
            "GIT_CONFIG_COUNT": "2",  # runs are tagged with git's user
            "GIT_CONFIG_KEY_0": "user.name",
            "GIT_CONFIG_VALUE_0": "A developer",
            "GIT_CONFIG_KEY_1": "user.email",
            "GIT_CONFIG_VALUE_1": "developer@example.org",
        }
    )
