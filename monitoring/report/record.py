"""Record monitoring runs in MLflow: one MLflow run each, in the experiment wine-quality-monitoring.

An MLflow run has the figures of the latest window as metrics, the reports as artifacts, and as tags the window, the
serving version, the alarm and the action. It is written at the end; only the end state of a retraining without a result
is added later.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

import mlflow
from mlflow.entities import Run

from deployment.prediction_log.windows import format_time
from experiment_tracking.runs.store import MONITORING, find_experiment
from experiment_tracking.runs.tracking import describe_code, end_run, log_values
from monitoring.watch import Watch, WindowReport

RETRAINING, _FLOW_RUN = "retraining started", ": flow run "
_ENDS = {"cancelled": "was cancelled", "crashed": "crashed", "failed": "failed"}


@dataclass(frozen=True)
class MonitoringRun:
    """One recorded run: `reason` of the alarm, "" for none, and the `action` taken.

    `since` and `until` are of its latest window; `graded` counts the graded predictions of all its windows.
    `bad_end` is the end state of a retraining that was cancelled, crashed or failed, else "".
    """

    when: datetime
    run_id: str
    version: str
    since: float
    until: float
    reason: str
    action: str
    graded: int
    bad_end: str = ""

    def describe_action(self) -> str:
        """The action after the alarm, and whether its retraining had no result."""
        return f"{self.action}, which {_ENDS[self.bad_end]}: no retraining" if self.bad_end else self.action

    def retrained(self) -> bool:
        """Whether it started a retraining that has not ended badly."""
        return self.action.startswith(RETRAINING) and not self.bad_end

    def flow_run(self) -> str:
        """The id of the retraining's flow run."""
        return self.action.rpartition(_FLOW_RUN)[2]

    def saw(self, watch: Watch) -> bool:
        """Whether there is no new prediction, grade or champion since this run."""
        seen = watch.metadata.version, watch.windows[-1].span.until, _count_graded(watch)
        return (self.version, self.until, self.graded) == seen


def record_watch(watch: Watch, action: str = "") -> str:
    """Record a run with at least one window, and the action after an alarm; return the id of the MLflow run."""
    latest = watch.windows[-1]
    tags = {
        **describe_code(),
        "version": watch.metadata.version,
        "since": repr(latest.span.since),
        "until": repr(latest.span.until),
        "alarm": watch.alarm.reason() if watch.alarm.raised else "",
        "action": action,
        "part": latest.part,
        "graded": str(_count_graded(watch)),
    }
    client, experiment = mlflow.MlflowClient(), find_experiment(MONITORING)
    name = f"window until {format_time(latest.span.until)}"
    run_id = str(client.create_run(experiment.experiment_id, run_name=name, tags=tags).info.run_id)
    log_values(run_id, metrics=dict(_name_metrics(latest)))
    findings = "\n".join(f"- {finding.sentence()}" for finding in watch.alarm.findings) or "No alarm."
    client.log_text(run_id, findings + "\n", "alarm.md")
    end_run(run_id)
    return run_id


def keep_reports(run_id: str, reports: Path) -> None:
    """Log the files of a folder as artifacts of an MLflow run."""
    mlflow.MlflowClient().log_artifacts(run_id, str(reports), "reports")


def list_monitoring_runs() -> list[MonitoringRun]:
    """All recorded runs of monitoring, oldest first."""
    runs = mlflow.search_runs(
        [find_experiment(MONITORING).experiment_id],
        "attributes.status = 'FINISHED'",
        order_by=["attributes.start_time ASC"],
        output_format="list",
    )
    return [_read_monitoring_run(run) for run in runs]


def find_last_retraining() -> MonitoringRun | None:
    """The last run that started a retraining; a cancelled, crashed or failed retraining does not count."""
    return next((run for run in reversed(list_monitoring_runs()) if run.retrained()), None)


def list_bad_ends() -> list[MonitoringRun]:
    """The latest runs in a row whose retrainings ended badly, newest first."""
    started = [run for run in reversed(list_monitoring_runs()) if run.action.startswith(RETRAINING)]
    return list(takewhile(lambda run: run.bad_end, started))


def record_bad_end(run: MonitoringRun, state: str) -> None:
    """Record that the retraining of a run was cancelled, crashed or failed."""
    mlflow.MlflowClient().set_tag(run.run_id, "bad_end", state)


def describe_retraining(wines: str, flow_run: str) -> str:
    """The action text for a retraining started on these wines."""
    return f"{RETRAINING} on {wines}{_FLOW_RUN}{flow_run}"


def _count_graded(watch: Watch) -> int:
    return sum(window.graded for window in watch.windows)


def _name_metrics(window: WindowReport) -> Iterator[tuple[str, float]]:
    yield from ((name, getattr(window, name)) for name in ("asked", "answered", "graded", "corrupt"))
    for check in window.checks:
        for measure, value in check.figures.items():
            yield f"{check.kind}/{check.name}/{measure}".replace("'", ""), value
    if window.quality:
        yield from ((f"quality/{name}", value) for name, value in window.quality.metrics.items())
    if window.estimate is not None:
        yield "quality/estimated accuracy", window.estimate
    if window.low_confidence is not None:
        yield "predictions/low confidence", window.low_confidence
    if window.health:
        yield from ((f"health/{name}", value) for name, value in vars(window.health).items())


def _read_monitoring_run(run: Run) -> MonitoringRun:
    tags = run.data.tags
    return MonitoringRun(
        when=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        run_id=run.info.run_id,
        version=tags["version"],
        since=float(tags["since"]),
        until=float(tags["until"]),
        reason=tags["alarm"],
        action=tags["action"],
        graded=int(tags["graded"]),
        bad_end=tags.get("bad_end", ""),
    )
