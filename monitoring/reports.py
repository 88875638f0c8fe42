"""Evidently reports on a window of the prediction log, or on a file of wines.

    python -m monitoring.reports [FILE.csv]

writes pages and the same figures as JSON to a folder in WINE_MONITORING_REPORTS. For the newest window: inputs,
predictions and, if 30 predictions have a taster's grade, quality. For a file: missing values and drift.
"""

import argparse
import time
from pathlib import Path

from commands import DONE, NotThereError, run_command
from settings import load_settings


def main() -> int:
    """Write the reports of the newest window, or of a file, and print their paths."""
    parser = argparse.ArgumentParser(
        description="Compare the newest window of the prediction log, or a file of wines, with the training data."
    )
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE.csv", help="a file of wines (default: the prediction log)"
    )
    file = parser.parse_args().file
    settings = load_settings()

    import pandas as pd

    from deployment.prediction_log.windows import Span, Window, find_windows, read_window, require_window
    from monitoring.drift import find_nearest
    from monitoring.report.files import read_file, report_batch, write_window_reports
    from monitoring.watch import MOST_WINDOWS, read_reference

    metadata = read_reference(settings.serving_models)
    if file:
        rows = read_file(file, settings.wine_type)
        if malformed := int(rows.isna().all(axis="columns").sum()):
            print(f"{malformed:,} of {len(rows):,} rows are invalid: they count as missing in every column")
        nearest = find_nearest(Window(Span(0, 0), rows.dropna(), pd.DataFrame()), metadata.profiles)
        written = report_batch(file, nearest, settings.monitoring_reports / file.stem, settings.wine_type)
    else:
        cut = settings.log_url, settings.window_rows, settings.window_hours, time.time()
        spans = find_windows(*cut, most=MOST_WINDOWS)
        require_window(*cut, spans)
        window = read_window(settings.log_url, spans[-1])
        written = write_window_reports(window, metadata, settings.monitoring_reports)
        if not written:
            raise NotThereError(f"all {window.asked:,} wines of the newest window were refused, so there is no report")
    print("\n".join(map(str, written)))
    print(f"Next: open {written[0]} in a browser")
    return DONE


if __name__ == "__main__":
    run_command(main)
