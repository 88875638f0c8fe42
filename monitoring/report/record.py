"""What monitoring found and did, in MLflow: one run each time, in the experiment wine-quality-monitoring.

An MLflow run has every figure of the latest window as a metric, the reports as artifacts, and as tags the window,
the version that served, the alarm and what was done about it. It is written at the end and not changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow
from mlflow.entities import Run

from deployment.prediction_log.windows import format_time
from experiment_tracking.runs.store import MONITORING, find_experiment
from experiment_tracking.runs.tracking import describe_code, end_run, log_values
from monitoring.watch import Watch, WindowReport

RETRAINING = "retraining started"


@dataclass(frozen=True)
class MonitoringRun:
    """One recorded run: `reason` is the alarm's, "" for none; `action` what was done about it.

    `since` and `until` are of its latest window; `graded` counts the graded answers of all its windows.
    """

    when: datetime
    run_id: str
    version: str
    since: float
    until: float
    reason: str
    action: str
    graded: int

    def saw(self, watch: Watch) -> bool:
        """Whether no answer, no grade and no champion has come between this run and another."""
        seen = watch.metadata.version, watch.windows[-1].span.until, _count_graded(watch)
        return (self.version, self.until, self.graded) == seen


def record_watch(watch: Watch, action: str = "") -> str:
    """Record a run with at least one window, and what was done about an alarm; return the id of the MLflow run."""
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
    """Keep the files of a folder with an MLflow run."""
    mlflow.MlflowClient().log_artifacts(run_id, str(reports), "reports")


def list_monitoring_runs() -> list[MonitoringRun]:
    """Every recorded run of monitoring, the oldest first."""
    runs = mlflow.search_runs(
        [find_experiment(MONITORING).experiment_id],
        "attributes.status = 'FINISHED'",
        order_by=["attributes.start_time ASC"],
        output_format="list",
    )
    return [_read_monitoring_run(run) for run in runs]


def find_last_retraining() -> datetime | None:
    """When an alarm last started a retraining."""
    return max((run.when for run in list_monitoring_runs() if run.action.startswith(RETRAINING)), default=None)


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
    )
