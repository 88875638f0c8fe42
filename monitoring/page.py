"""Write the monitoring page: one file, index.html, that a browser opens without a server.

python -m monitoring.page
"""

import argparse
import time

from rich.console import Console
from rich.progress import Progress

from commands import DONE, run_command
from settings import load_settings


def main() -> int:
    """Check the log, write the page and print its path."""
    argparse.ArgumentParser(
        prog="python -m monitoring.page",
        description="Write the monitoring page of the champion: traffic, quality, drift, alarms.",
    ).parse_args()
    settings, now = load_settings(), time.time()
    console = Console(highlight=False, soft_wrap=True)

    from deployment.prediction_log.windows import read_window, require_window
    from monitoring.watch import MOST_WINDOWS, watch_log

    with Progress(console=console) as progress:
        bar = progress.add_task("Checking the windows", total=None)
        watch = watch_log(
            settings, MOST_WINDOWS, now, lambda done, total: progress.update(bar, completed=done, total=total)
        )
    require_window(settings.log_url, settings.window_rows, settings.window_hours, now, watch.windows)
    with console.status("Drawing the reports of the latest window"):
        from monitoring.report.files import write_window_reports

        latest = read_window(settings.log_url, watch.windows[-1].span)
        write_window_reports(latest, watch.metadata, settings.monitoring_reports)

    from experiment_tracking.registry.promotion import list_records
    from experiment_tracking.runs.store import open_store
    from monitoring.report.page_layout import count_things, write_page
    from monitoring.report.record import list_monitoring_runs

    open_store(settings.mlflow_uri, settings.mlflow_artifacts)
    page = write_page(watch, list_monitoring_runs(), list_records(), settings.monitoring_reports, now)
    verdict = f"alarm: {watch.alarm.reason()}" if watch.alarm.raised else "no alarm"
    windows = count_things(len(watch.windows), "window")
    console.print(f"{windows} of version {watch.metadata.version}, {verdict}: {page}")
    console.print(f"Next: open {page} in a browser")
    return DONE


if __name__ == "__main__":
    run_command(main)
