"""The steps of a drill: each asks servers and commands of the project for something, and looks at what comes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console

from commands import DONE, FINDING
from deployment.log_reader import count_answers, read_answers
from deployment.server_process import find_free_ports, run_server, wait_until
from experiment_tracking.promotion import list_records
from experiment_tracking.store import open_store
from monitoring.drifts import Drift
from monitoring.quality import Quality, measure_quality
from monitoring.traffic import draw_wines, send_wines
from monitoring.watch import report_window
from monitoring.windows import find_windows, read_window
from orchestration.drill_figure import Moment, draw_story
from settings import ROOT
from wine_data.schema import EXAMPLE
from wine_quality_training.bundle import FACTS_FILE, read_facts

WINDOW, WINDOWS = 400, 3
NORMAL, VINTAGE = Drift("none"), Drift("shift", size=2.0)
LABELS = 0.8  # the share of wines that tasters grade
MODELS, FOLDS = ("ExtraTreesClassifier",), 2  # a small budget: one fit of a second where five are compared by default
STEP_SECONDS, RETRAINING_SECONDS, RELOAD_SECONDS = 240, 300, 15
DRIFT, ROLLBACK = "the drift begins", "rollback"  # moments that others ask for
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class StepFailedError(Exception):
    """A command or server of the drill failed; the text says which, and what it printed."""


@dataclass
class Drill:
    """A drill under way: where everything lies, what its commands are told, and what has happened so far."""

    folder: Path
    console: Console
    environment: dict[str, str] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)
    moments: list[Moment] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Choose ports and places."""
        self.environment = make_environment(self.folder)

    @property
    def api(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self.environment['WINE_PORT']}"

    @property
    def log_url(self) -> str:
        """The database of the prediction log."""
        return self.environment["WINE_LOG_URL"]

    def tell(self, what: str, label: str = "") -> None:
        """Say that a step is done; one with a label is a moment of the picture."""
        self.console.print(f"{time.monotonic() - self.start:5.0f} s  {what}")
        if label:
            self.moments.append(Moment(time.time(), label))

    def require(self, fine: bool, problem: str) -> None:
        """Remember what did not come out as it should; the drill goes on, and ends with 1."""
        if not fine:
            self.missed.append(problem)
            self.console.print(f"         missed: {problem}")

    def run(self, module: str, *arguments: str, ends: Sequence[int] = (DONE,)) -> str:
        """Run a command of the project to its end, and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=STEP_SECONDS, check=False,
        )  # fmt: skip
        with (self.folder / "drill.log").open("a") as log:
            log.write(f"$ python -m {module} {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
        crashed = done.returncode == FINDING and "Traceback" in done.stderr  # Python's own 1
        if done.returncode not in ends or crashed:
            raise StepFailedError(f"{module} {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout


def make_environment(folder: Path) -> dict[str, str]:
    """The environment of here, with every place and port of the project moved to the drill's own."""
    ports = iter(find_free_ports(2))
    prefect_port = next(ports)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WINE_", "PREFECT_"))}
    return inherited | {
        "WINE_DATA": "twin",
        "WINE_FOLDS": str(FOLDS),
        "WINE_WINDOW_ROWS": str(WINDOW),
        "WINE_PORT": str(next(ports)),
        "WINE_PREFECT_PORT": str(prefect_port),
        "WINE_LOG_URL": f"sqlite:///{folder / 'predictions.db'}",
        "WINE_MLFLOW_ARTIFACTS": str(folder / "mlartifacts"),
        "WINE_SERVING_MODELS": str(folder / "models"),
        "WINE_TRAINING_MODELS": str(folder / "candidates"),
        "WINE_SNAPSHOTS": str(folder / "snapshots"),
        "WINE_DOWNLOADS": str(folder / "downloads"),
        "WINE_AUDIT_FIGURE": str(folder / "audit.png"),
        "WINE_MONITORING_REPORTS": str(folder / "reports"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(folder / ".prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect_port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }


def run_drill(drill: Drill) -> None:
    """Go through the loop, step by step."""
    with ExitStack() as servers:
        servers.enter_context(run_prefect(drill))
        with ThreadPoolExecutor() as beside:  # two commands at once, on two cores
            training = beside.submit(drill.run, "orchestration.flows", "--models", *MODELS)
            for order in ("deploy", "worker"):
                drill.run("orchestration.services", order)
            training.result()
        open_store(drill.environment["MLFLOW_TRACKING_URI"], drill.folder / "mlartifacts")
        drill.tell("a worker is up; version 1 is trained on the twin, through the gate, and the champion")
        servers.enter_context(
            run_server("deployment.serve", f"{drill.api}/ready", drill.environment, drill.folder / "api.log")
        )
        drill.tell(f"the API serves it on {drill.api}", "version 1 serves")
        send_traffic(drill, NORMAL, seed=1)
        look(drill, alarm=False)
        send_traffic(drill, VINTAGE, seed=2, label=DRIFT)
        retraining = look(drill, alarm=True)
        await_retraining(drill, retraining)
        require_version(drill, "2", "the API answers with version 2")
        send_traffic(drill, VINTAGE, seed=3, label="version 2 serves")
        compare_quality(drill)
        look(drill, alarm=False)
        drill.moments.append(Moment(time.time(), ROLLBACK))
        drill.run("experiment_tracking.registry", "rollback", "--reason", "the drill's last step")
        require_version(drill, "1", "rolled back: the API answers with version 1 again")


@contextmanager
def run_prefect(drill: Drill) -> Iterator[None]:
    """Start a Prefect server for the time of the drill, and end it with the worker that works for it."""
    try:
        drill.run("orchestration.services", "prefect")
        drill.tell("a Prefect server is up")
        yield
    finally:
        drill.run("orchestration.services", "stop")


def send_traffic(drill: Drill, drift: Drift, seed: int, label: str = "") -> None:
    """Ask the API for three windows of wines, and wait until its log has them."""
    wines = draw_wines(drift, WINDOW * WINDOWS, seed)
    before = count_answers(drill.log_url) if label else 0
    if label:
        drill.moments.append(Moment(time.time(), label))
    sent = send_wines(drill.api, wines, LABELS, delay=WINDOW // 2, seed=seed)
    wait_until(lambda: count_answers(drill.log_url) >= before + sent.answered, "the log to have every answer")
    kind = "normal" if drift == NORMAL else f"{drift.feature} {drift.size:+g} standard deviations"
    drill.tell(f"{sent.answered:,} wines answered, {sent.graded:,} graded by tasters; {kind}")


def look(drill: Drill, alarm: bool) -> str:
    """Let monitoring look at the log; return what it did about an alarm."""
    printed = drill.run("orchestration.monitoring", "--models", *MODELS, "--folds", str(FOLDS), ends=(DONE, FINDING))
    lines = [line for line in printed.splitlines() if line and not line.startswith("Next")]
    raised = any("Alarm: " in line for line in lines)
    drill.tell("monitoring: " + ". ".join(lines), "alarm" if raised else "")
    drill.require(raised == alarm, "there should be an alarm" if alarm else "there should be no alarm")
    return lines[-1] if raised else ""


def await_retraining(drill: Drill, action: str) -> None:
    """Wait until the retraining that an alarm started has ended, and say what the gate made of it."""
    run_id = action.rpartition(" ")[2]
    deadline = time.monotonic() + RETRAINING_SECONDS
    state = ""
    while state not in ENDED and time.monotonic() < deadline:
        time.sleep(1)
        state = find_state(drill, run_id)
    drill.tell(f"the retraining has ended: {state.lower() or 'the server does not know of it'}")
    drill.require(state == "COMPLETED", "the retraining should complete")
    record = list_records()[-1]
    for sentence in record.verdict.split("; "):
        drill.console.print(f"         {sentence}")
    drill.tell(f"the champion alias: {record.event} of version {record.version}", "promotion")
    drill.require(record.version == "2" and record.event == "promotion", "version 2 should be promoted")


def find_state(drill: Drill, run_id: str) -> str:
    """The state of a flow run, "" while the server does not say."""
    with suppress(httpx.TransportError):
        answer = httpx.get(f"{drill.environment['PREFECT_API_URL']}/flow_runs/{run_id}", timeout=30)
        return str(answer.json()["state_type"]) if answer.is_success else ""
    return ""


def require_version(drill: Drill, version: str, what: str) -> None:
    """Ask the API until it answers with a version."""
    deadline = time.monotonic() + RELOAD_SECONDS
    while (found := ask_version(drill, EXAMPLE)) != version and time.monotonic() < deadline:
        time.sleep(0.1)
    drill.tell(what)
    drill.require(found == version, f"the API answers with version {found}")


def ask_version(drill: Drill, wine: dict[str, float]) -> str:
    """The version that a live answer comes from."""
    answer = httpx.post(f"{drill.api}/predict", json=wine, timeout=30).raise_for_status().json()
    return str(answer["model"]["version"])


def compare_quality(drill: Drill) -> None:
    """Say how good version 1 and version 2 were on wines of the drifted vintage, by the tasters."""
    begin = next(moment.time for moment in drill.moments if moment.label == DRIFT)
    answers = read_answers(drill.log_url, since=begin)
    before, after = (measure_quality(answers[answers["version"] == version]) for version in ("1", "2"))
    for version, quality in (("1", before), ("2", after)):
        drill.console.print(f"         version {version} on the drifted wines: {describe(quality)}")
    drill.tell("the quality on drifted wines is compared")
    better = bool(before and after and after.intervals["kappa"][0] > before.intervals["kappa"][1])
    drill.require(better, "version 2 should be better on the drifted wines")


def describe(quality: Quality | None) -> str:
    """A measured quality in a line."""
    if quality is None:
        return "too few grades"
    kappa, (low, high) = quality.metrics["kappa"], quality.intervals["kappa"]
    return (
        f"kappa {kappa:.2f} ({low:.2f} to {high:.2f}), accuracy {quality.metrics['accuracy']:.2f}, "
        f"{quality.graded:,} graded wines"
    )


def draw(drill: Drill, target: Path) -> None:
    """Draw the story as it went, with the drift against version 1's reference throughout."""
    facts = read_facts(drill.folder / "models" / "1" / FACTS_FILE)
    end = next(moment.time for moment in drill.moments if moment.label == ROLLBACK)
    spans = find_windows(drill.log_url, WINDOW, 0, end, most=20)
    windows = [read_window(drill.log_url, span) for span in spans]
    figure = draw_story(
        [report_window(window, facts) for window in windows],
        [measure_quality(window.answers) for window in windows],
        drill.moments,
        VINTAGE.feature,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Software": None})
