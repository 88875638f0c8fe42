"""The steps of a drill: each uses a server or flow of the project, and checks the result."""

import os
import time
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from rich.console import Console

from deployment.api.server_process import HOST, run_server, wait_until
from deployment.prediction_log.reader import count_answers, read_answers
from deployment.prediction_log.windows import find_windows, read_window
from experiment_tracking.registry.promotion import list_records, roll_back
from monitoring.quality import Quality, measure_quality
from monitoring.simulate.drifts import Drift
from monitoring.simulate.traffic import Traffic, sample_drifted, send_wines
from monitoring.watch import report_window
from orchestration.drill.figure import Moment, plot_story
from orchestration.flows import main_flow
from orchestration.monitoring import monitoring_flow
from settings import Settings, load_settings
from wine_data.schema import EXAMPLE
from wine_quality_training.bundle.bundle import METADATA_FILE
from wine_quality_training.bundle.metadata import read_metadata

WINDOWS, SEED = 3, 42
NORMAL, VINTAGE = Drift("none"), Drift("shift", size=2.0)
LABELS = 0.8  # the share of wines that tasters grade
MODELS = ("ExtraTreesClassifier",)  # to save time: one fit of a second, where the default compares five models
RETRAINING_SECONDS = 300
DRIFT, ROLLBACK = "the drift begins", "rollback"  # moments that other steps refer to


@dataclass
class Drill:
    """A running drill: its locations, and the events so far."""

    folder: Path
    console: Console
    settings: Settings = field(default_factory=load_settings)
    start: float = field(default_factory=time.monotonic)
    moments: list[Moment] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @property
    def api(self) -> str:
        """The address of the API."""
        return f"http://{HOST}:{self.settings.port}"

    def report(self, what: str, label: str = "") -> None:
        """Report a finished step; one with a label is a moment in the plot."""
        self.console.print(f"{time.monotonic() - self.start:5.0f} s  {what}")
        if label:
            self.moments.append(Moment(time.time(), label))

    def require(self, fine: bool, problem: str) -> None:
        """Record an unexpected result; the drill continues, and ends with 1."""
        if not fine:
            self.missed.append(problem)
            self.console.print(f"         missed: {problem}")


def run_drill(drill: Drill, server: Future[None], worker: Future[None]) -> None:
    """Run the steps of the loop."""
    with ExitStack() as running:
        server.result()
        drill.report("a Prefect server is up")
        main_flow("", drill.settings.folds, SEED, MODELS)
        drill.report("version 1 is trained on the twin, through the gate, and the champion")
        running.enter_context(
            run_server("deployment.serve", f"{drill.api}/ready", os.environ, drill.folder / "api.log")
        )
        http = running.enter_context(httpx.Client(base_url=drill.api, timeout=30))
        drill.report(f"the API serves it on {drill.api}", "version 1 serves")
        send_traffic(drill, NORMAL, seed=1)
        monitor(drill, alarm=False)
        send_traffic(drill, VINTAGE, seed=2, label=DRIFT)
        worker.result()
        drill.report("a worker is up")
        await_retraining(drill, monitor(drill, alarm=True))
        await_version(drill, http, "2")
        drill.report("the API answers with version 2")
        send_traffic(drill, VINTAGE, seed=3, label="version 2 serves")
        compare_quality(drill)
        monitor(drill, alarm=False)
        drill.moments.append(Moment(time.time(), ROLLBACK))
        roll_back(drill.settings.serving_models, "the drill's last step")
        await_version(drill, http, "1")
        drill.report("rolled back: the API answers with version 1 again")


def send_traffic(drill: Drill, drift: Drift, seed: int, label: str = "") -> None:
    """Send three windows of wines to the API, and wait until its log has them."""
    wines = sample_drifted(drift, drill.settings.window_rows * WINDOWS, seed)
    before = count_answers(drill.settings.log_url) if label else 0
    if label:
        drill.moments.append(Moment(time.time(), label))
    sent = send_wines(drill.api, wines, Traffic(LABELS, delay=drill.settings.window_rows // 2, seed=seed))
    wait_until(lambda: count_answers(drill.settings.log_url) >= before + sent.answered, "the log to have every answer")
    kind = "normal" if drift == NORMAL else f"{drift.feature} {drift.size:+g} standard deviations"
    drill.report(f"{sent.answered:,} wines answered, {sent.graded:,} graded by tasters; {kind}")


def monitor(drill: Drill, alarm: bool) -> str:
    """Run monitoring on the log; return its action after an alarm."""
    seen = monitoring_flow(True, MODELS, drill.settings.folds)
    result = f"Alarm: {seen.alarm}. {seen.action}" if seen.alarm else "No alarm"
    drill.report(f"monitoring: {seen.windows} windows. {result}", "alarm" if seen.alarm else "")
    drill.require(bool(seen.alarm) == alarm, "there should be an alarm" if alarm else "there should be no alarm")
    return seen.action


def await_retraining(drill: Drill, action: str) -> None:
    """Wait until the retraining after an alarm has ended, and report the gate's verdict."""
    run_id = UUID(action.rpartition(" ")[2])
    with get_client(sync_client=True) as prefect:

        def has_ended() -> bool:
            state = prefect.read_flow_run(run_id).state
            return state is not None and state.is_final()

        wait_until(has_ended, f"the flow run {run_id} to end", RETRAINING_SECONDS)
        run = prefect.read_flow_run(run_id)
    drill.report(f"the retraining has ended: {run.state_name}")
    drill.require(run.state_name == "Completed", "the retraining should complete")
    record = list_records()[-1]
    for sentence in record.verdict.split("; "):
        drill.console.print(f"         {sentence}")
    drill.report(f"the champion alias: {record.event} of version {record.version}", "promotion")
    drill.require(record.version == "2" and record.event == "promotion", "version 2 should be promoted")


def await_version(drill: Drill, http: httpx.Client, version: str) -> None:
    """Wait until the API serves a version."""

    def answers_with_it() -> bool:
        answer = http.post("/predict", json=EXAMPLE).raise_for_status().json()
        return bool(answer["model"]["version"] == version)

    wait_until(answers_with_it, f"{drill.api} to answer with version {version}")


def compare_quality(drill: Drill) -> None:
    """Report the quality of versions 1 and 2 on wines of the drifted vintage, by the tasters' grades."""
    begin = next(moment.time for moment in drill.moments if moment.label == DRIFT)
    answers = read_answers(drill.settings.log_url, since=begin)
    before, after = (measure_quality(answers[answers["version"] == version]) for version in ("1", "2"))
    for version, quality in (("1", before), ("2", after)):
        drill.console.print(f"         version {version} on the drifted wines: {_describe(quality)}")
    drill.report("the quality on drifted wines is compared")
    better = bool(before and after and after.intervals["kappa"][0] > before.intervals["kappa"][1])
    drill.require(better, "version 2 should be better on the drifted wines")


def _describe(quality: Quality | None) -> str:
    """A measured quality in one line."""
    if quality is None:
        return "too few grades"
    kappa, (low, high) = quality.metrics["kappa"], quality.intervals["kappa"]
    return (
        f"kappa {kappa:.2f} ({low:.2f} to {high:.2f}), accuracy {quality.metrics['accuracy']:.2f}, "
        f"{quality.graded:,} graded wines"
    )


def plot_drill(drill: Drill, target: Path) -> None:
    """Plot the drill, with the drift of all windows against version 1's reference."""
    metadata = read_metadata(drill.settings.serving_models / "1" / METADATA_FILE)
    end = next(moment.time for moment in drill.moments if moment.label == ROLLBACK)
    spans = find_windows(drill.settings.log_url, drill.settings.window_rows, 0, end, most=20)
    windows = [read_window(drill.settings.log_url, span) for span in spans]
    figure = plot_story(
        [report_window(window, metadata) for window in windows],
        [measure_quality(window.answers) for window in windows],
        drill.moments,
        VINTAGE.feature,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Software": None})
