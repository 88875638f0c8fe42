"""What monitoring saw and did, in MLflow: one run a look, in the experiment wine-quality-monitoring.

A look's run has every figure of its latest window as a metric, the reports as artifacts, and as tags the window,
the version that served, the alarm and what was done about it. It is written when the look is over and not changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow
from mlflow.entities import Run, ViewType

from experiment_tracking.runs.store import MONITORING, find_experiment
from experiment_tracking.runs.tracking import describe_code, end_run, log_values
from monitoring.watch import Watch, WindowReport

RETRAINING = "retraining started"


@dataclass(frozen=True)
class MonitoringRun:
    """One look as it was recorded: `reason` is the alarm's, "" for none; `action` what was done about it.

    `since` and `until` are of its latest window; `graded` answers stood in all of its windows.
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
        """Whether this look saw all that another sees: no answer, no grade and no champion has come since."""
        graded = sum(window.graded for window in watch.windows)
        latest = watch.windows[-1].span.until
        return (self.version, self.until, self.graded) == (watch.metadata.version, latest, graded)


def record_watch(watch: Watch, action: str = "") -> str:
    """Record a look whose log held at least one window, and what was done about an alarm; return the id of its run."""
    latest = watch.windows[-1]
    tags = {
        **describe_code(),
        "version": watch.metadata.version,
        "since": repr(latest.span.since),
        "until": repr(latest.span.until),
        "alarm": watch.alarm.reason() if watch.alarm.raised else "",
        "action": action,
        "part": latest.part,
        "graded": str(sum(window.graded for window in watch.windows)),
    }
    experiment = find_experiment(MONITORING)
    until = datetime.fromtimestamp(latest.span.until, UTC)
    name = f"window until {until:%Y-%m-%d %H:%M:%S}"
    run_id = str(mlflow.MlflowClient().create_run(experiment.experiment_id, run_name=name, tags=tags).info.run_id)
    log_values(run_id, metrics=dict(_name_metrics(latest)))
    findings = "\n".join(f"- {finding.sentence()}" for finding in watch.alarm.findings) or "No alarm."
    mlflow.MlflowClient().log_text(run_id, findings + "\n", "alarm.md")
    end_run(run_id)
    return run_id


def keep_reports(run_id: str, reports: Path) -> None:
    """Keep the files of a folder with the run of a look."""
    mlflow.MlflowClient().log_artifacts(run_id, str(reports), "reports")


def list_monitoring_runs() -> list[MonitoringRun]:
    """Every look that was recorded, the oldest first."""
    experiment = find_experiment(MONITORING)
    looks: list[MonitoringRun] = []
    token: str | None = ""
    while token is not None:
        page = mlflow.MlflowClient().search_runs(
            [experiment.experiment_id],
            "attributes.status = 'FINISHED'",
            ViewType.ACTIVE_ONLY,
            1000,
            ["attributes.start_time ASC"],
            token,
        )
        looks += [_read_monitoring_run(run) for run in page]
        token = page.token or None
    return looks


def find_last_retraining() -> datetime | None:
    """When an alarm last started a retraining."""
    return max((look.when for look in list_monitoring_runs() if look.action.startswith(RETRAINING)), default=None)


def _name_metrics(window: WindowReport) -> Iterator[tuple[str, float]]:
    yield from (("asked", window.asked), ("answered", window.answered), ("graded", window.graded))
    yield "corrupt", window.corrupt
    for check in window.checks:
        for measure, value in check.figures.items():
            yield f"{check.kind}/{check.name.replace(chr(39), '')}/{measure}", value
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
    when = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    since, until = float(tags["since"]), float(tags["until"])
    return MonitoringRun(
        when, run.info.run_id, tags["version"], since, until, tags["alarm"], tags["action"], int(tags["graded"])
    )
