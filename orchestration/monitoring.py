"""Automatic monitoring: check the newest windows of the prediction log, and react to an alarm.

    python -m orchestration.monitoring

runs it once, in this process; the deployment `monitor` of prefect.yaml runs it every hour. An alarm starts the training
deployment with its reason. The new model must pass the gate, as every model must.
"""

import argparse

from wine_quality_training.models import ALL_MODELS


def parse_monitoring() -> argparse.Namespace:
    """Parse the arguments of orchestration.monitoring."""
    parser = argparse.ArgumentParser(
        description="Check the newest windows of the prediction log; an alarm starts the training deployment. "
        "Exit code: 1 if there is an alarm."
    )
    parser.add_argument("--no-retraining", action="store_true", help="report an alarm, but start no retraining")
    parser.add_argument(
        "--models",
        nargs="+",
        default=ALL_MODELS,
        choices=ALL_MODELS,
        help="the models that a retraining compares (all)",
    )
    parser.add_argument("--folds", type=int, help="folds of its cross-validation (WINE_FOLDS)")
    return parser.parse_args()


# Handle --help and wrong arguments here, before the slow imports below; main() reads the arguments.
if __name__ == "__main__":
    parse_monitoring()

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from rich.console import Console

from commands import DONE, FINDING, BadInputError, run_command
from deployment.prediction_log.findings import write_findings
from deployment.prediction_log.windows import read_window
from experiment_tracking.registry.promotion import list_records
from monitoring.report.figures import plot_drift
from monitoring.report.files import write_window_reports
from monitoring.report.page_layout import write_page
from monitoring.report.record import (
    describe_retraining,
    find_last_retraining,
    keep_reports,
    list_bad_ends,
    list_monitoring_runs,
    record_bad_end,
    record_watch,
)
from monitoring.watch import MOST_WINDOWS, Watch, list_findings, watch_log
from orchestration.flows import open_task
from orchestration.tasks.artifacts import create_picture_artifact
from orchestration.tasks.lost_runs import end_lost_runs, find_bad_end, has_succeeded
from orchestration.tasks.notification import notify_webhook, post_webhook
from orchestration.tasks.parameters import Folds, Models
from orchestration.tasks.steps import gather_labelled
from orchestration.tasks.wiring import prefect_server, wire
from settings import Settings, load_settings
from wine_data.schema import NAME, ROWS
from wine_data.snapshots.snapshot import read_snapshot

TRAINING = f"{NAME}-pipeline/train"
MOST_BAD_ENDS = 3  # retrainings in a row, after which alarms start no more of them


@dataclass(frozen=True)
class Outcome:
    """The result of a run: number of windows, reason of the alarm ("" for none), action, and path of the page."""

    windows: int
    alarm: str
    action: str
    page: str = ""


watch_task = wire(watch_log, "compare the log")
note_task = wire(write_findings, "note the findings for /metrics")
record_task = wire(record_watch, "record the run")
keep_task = wire(keep_reports, "keep the reports")
lost_task = wire(end_lost_runs, "end lost runs")


@flow(name=f"{NAME}-monitoring", timeout_seconds=3600, on_failure=[notify_webhook], on_crashed=[notify_webhook])
def monitoring_flow(retrain: bool = True, models: Models = ALL_MODELS, folds: Folds = None) -> Outcome:
    """Check the newest windows, report them, and start a retraining if there is an alarm.

    Args:
        retrain: whether an alarm starts a retraining; if not, it is only reported.
        models: the models that a retraining compares.
        folds: folds of its cross-validation. Empty: WINE_FOLDS.
    """
    settings, logger = load_settings(), get_run_logger()
    for sentence in lost_task():  # first: nothing else that fails may keep a lost run's state
        logger.warning(sentence)
    open_task(settings.mlflow_uri, settings.mlflow_artifacts)
    again = note_bad_end()
    if again:
        logger.warning(again)
    history = watch_task(settings, MOST_WINDOWS)
    note_task(settings.log_url, list_findings(history, time.time()))
    if not history.windows:
        hours, rows = settings.window_hours, settings.window_rows
        logger.info(
            "No full window yet: a window is %s", f"{hours:g} hours with a request" if hours else f"{rows:,} {ROWS}"
        )
        return Outcome(0, "", "")
    earlier = list_monitoring_runs()
    if earlier and earlier[-1].saw(history) and not again:
        logger.info("No new requests since the last run")
        return Outcome(len(history.windows), earlier[-1].reason, earlier[-1].action)
    action = ""
    if history.alarm.raised:
        for finding in history.alarm.findings:
            logger.warning(finding.sentence())
        action = start_retraining(history, settings, models, folds) if retrain else "reported only"
        logger.warning("Alarm: %s; %s", history.alarm.reason(), action)
        notify_alarm(history, action)
    else:
        logger.info("No alarm")
    page = publish(history, action, settings)
    create_markdown_artifact(render_checks(history), key="monitoring", description="The latest window, check by check")
    create_picture_artifact(plot_drift(history.windows), key="drift", description="Drift, window by window")
    return Outcome(len(history.windows), history.alarm.reason() if history.alarm.raised else "", action, page)


def start_retraining(watch: Watch, settings: Settings, models: Models, folds: Folds) -> str:
    """Start the training deployment after an alarm, unless a reason prevents it; return the action as text."""
    if stopped := find_stop():
        return f"no retraining: {stopped}"
    last = find_last_retraining()
    if last and datetime.now(UTC) - last.when < timedelta(hours=settings.cool_down_hours):
        return f"no retraining: the last was started at {last.when:%Y-%m-%d %H:%M} UTC, and the cool-down is not over"
    try:
        fingerprint = gather_labelled(settings.log_url, watch.alarm.since, settings.snapshots)
    except BadInputError as error:
        return f"no retraining: {error}"
    parameters = {
        "reason": watch.alarm.reason(),
        "labelled_since": watch.alarm.since,
        "models": list(models),
        "folds": folds,
    }
    try:
        run: Any = run_deployment(TRAINING, parameters=parameters, timeout=0, as_subflow=False)
    except ObjectNotFound:
        return f"no retraining: there is no deployment {TRAINING} on this Prefect server: make deploy"
    labelled = read_snapshot(settings.snapshots, fingerprint)
    note = f" ({labelled.note})" if labelled.note else ""
    return describe_retraining(f"{labelled.source}{note}", str(run.id))


def find_stop() -> str:
    """The reason why alarms start no more retrainings, with advice; "" if they do.

    A problem that made MOST_BAD_ENDS of them fail would make the next one fail too, every hour. A successful run since
    the first of these, manual or scheduled, shows that the problem is solved.
    """
    row = list_bad_ends()[:MOST_BAD_ENDS]
    if len(row) < MOST_BAD_ENDS or has_succeeded(f"{NAME}-pipeline", row[-1].when):
        return ""
    ends = ", ".join(f"{run.when:%Y-%m-%d %H:%M} UTC {run.bad_end}" for run in reversed(row))
    return (
        f"the last {len(row)} ended badly ({ends}), and alarms start no more. Mend what Prefect's page says of them, "
        f"then run {TRAINING} there by hand: once it went well, alarms start retrainings again"
    )


def note_bad_end() -> str:
    """Record a last retraining that was cancelled, crashed or failed; return a sentence on it, "" for none."""
    last = find_last_retraining()
    state = find_bad_end(last.flow_run()) if last else ""
    if not last or not state:
        return ""
    record_bad_end(last, state)
    return f"The retraining of {last.when:%Y-%m-%d %H:%M} UTC ended as {state}. It does not count"


def notify_alarm(watch: Watch, action: str) -> None:
    """Post an alarm to the webhook."""
    findings = [finding.sentence() for finding in watch.alarm.findings]
    text = f"{NAME} version {watch.metadata.version}: {watch.alarm.reason()}. {action}"
    post_webhook({"text": text, "alarm": watch.alarm.reason(), "findings": findings, "action": action})


def publish(watch: Watch, action: str, settings: Settings) -> str:
    """Record the run, draw and log the reports of its latest window, and update the page; return the page's path.

    The action is recorded before anything is drawn: if drawing fails, the next run must not start another retraining.
    """
    run_id = record_task(watch, action)
    latest = read_window(settings.log_url, watch.windows[-1].span)
    written = write_window_reports(latest, watch.metadata, settings.monitoring_reports)
    if written:  # none if all wines were refused
        keep_task(run_id, written[0].parent)
    return str(write_page(watch, list_monitoring_runs(), list_records(), settings.monitoring_reports, time.time()))


def render_checks(watch: Watch) -> str:
    """The checks of the latest window as Markdown, drifted ones first."""
    latest = watch.windows[-1]
    rows = [("check", "kind", "measured", "drifted"), ("---",) * 4]
    for check in sorted(latest.checks, key=lambda check: (not check.drifted, -check.strength)):
        measured = check.sentence().removeprefix(f"{check.name}: ")
        rows.append((check.name, check.kind, measured, "**yes**" if check.drifted else "no"))
    alarm = "\n".join(f"- {finding.sentence()}" for finding in watch.alarm.findings) or "No alarm."
    return f"{alarm}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    """Run monitoring once, and print the result."""
    arguments = parse_monitoring()
    settings = load_settings()
    watch_log(settings, 1)  # report a missing model or log before anything starts
    with prefect_server():
        outcome = monitoring_flow(not arguments.no_retraining, tuple(arguments.models), arguments.folds)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{outcome.windows} windows. " + (f"Alarm: {outcome.alarm}" if outcome.alarm else "No alarm"))
    if outcome.action:
        console.print(outcome.action)
    console.print(f"Next: open {outcome.page or settings.monitoring_reports / 'index.html'}")
    return FINDING if outcome.alarm else DONE


if __name__ == "__main__":
    run_command(main)
