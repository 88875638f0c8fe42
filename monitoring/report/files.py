"""Evidently reports as files: a page and the same figures as JSON, for a window or a file of wines.

Nothing here decides an alarm; drift.py and watch.py do, without Evidently. To agree with them, the pages use the KS and
floor of drift.py at the points of the profile, not a test of Evidently's. Such a test compares with the rebuilt
reference rows, which lie anywhere between those points, while measurements are rounded: for 5,000 wines without drift
it reported drift in six of the twelve columns.
"""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from atomic_files import write_atomically
from commands import NotThereError
from deployment.batch.chunks import divide_file, read_chunk
from deployment.batch.rows import read_numbers
from deployment.prediction_log.windows import Span, Window, format_time, select_model
from monitoring.drift import ALPHA, INPUTS, KS_FLOOR, PREDICTIONS, QUALITY, compare, distinct_answers, find_nearest
from monitoring.quality import FEWEST_GRADED
from wine_data.schema import FEATURES, FLAGS, ROWS, TARGET
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.bundle.profile import Marginal, Profile

REFERENCE_ROWS, SEED = 1_000, 0
PREDICTED = ("prediction", "confidence")
DISCRETE = (*FLAGS, "prediction", TARGET)  # drawn as bars; they have no values between two points
ONE_COLUMN = 0.08  # share of drifted columns that a page reports as drift: one of twelve, as for an alarm
TEST = "KS at the profile's points"
MISSING = "missing"
ENDINGS = (".html", ".json")
NO_ALARM = "For people to look at: nothing on this page decides an alarm, monitoring/watch.py does."


def write_reports(
    window: Window, part: Profile, folder: Path, version: str | None = None, run_id: str = ""
) -> list[Path]:
    """Write the reports of a window as pages and JSON, each file atomically; return their paths.

    There are no reports without predictions, none on predictions if the profile has none, and none on quality with
    fewer than FEWEST_GRADED graded predictions.

    Args:
        window: the rows of the log.
        part: the reference profile.
        folder: the folder for the files; created if missing.
        version: reports on predictions and quality use only this model's; None: all.
        run_id: the run of that model.
    """
    ours = window.answers if version is None else select_model(window.answers, version, run_id)
    return _write_all(folder, _report_window(window, part, ours, f" of version {version}" if version else ""))


def write_window_reports(window: Window, metadata: ModelMetadata, reports: Path) -> list[Path]:
    """Write the reports of a window, compared with a champion's reference, into a folder named after its end."""
    part = find_nearest(window, metadata.profiles)
    return write_reports(window, part, reports / name_folder(window.span), metadata.version, metadata.run_id)


def report_batch(path: Path, part: Profile, folder: Path, wine_type: str = "") -> list[Path]:
    """Report missing values and drift in a file of wines; errors as in read_file."""
    return _write_all(folder, _report_file(read_file(path, wine_type), path.name, part))


def sample_reference(part: Profile, rows: int = REFERENCE_ROWS) -> pd.DataFrame:
    """Turn a profile into rows for plots: evenly spaced quantiles, each column shuffled independently.

    A row is not a wine: the columns are independent, which is enough to compare them one by one.
    """
    random = np.random.default_rng(SEED)
    shares = (np.arange(rows) + 0.5) / rows
    columns = {}
    for name, marginal in _list_marginals(part).items():
        if name in DISCRETE:
            quantiles = np.array(marginal.points)[np.searchsorted(marginal.shares, shares)]
        else:
            quantiles = np.interp(shares, marginal.shares, marginal.points)
        columns[name] = random.permutation(quantiles)
    return pd.DataFrame(columns)


def read_file(path: Path, wine_type: str = "") -> pd.DataFrame:
    """Read a file of wines with columns FEATURES; a cell that is missing, or not a number or colour, is NaN.

    A row with too few or too many cells is NaN everywhere.

    Args:
        path: the file.
        wine_type: the colour of all its wines, if it has no such column.

    Raises:
        BadInputError: it is not a file of wines.
        NotThereError: the file does not exist.
    """
    if not path.is_file():
        raise NotThereError(f"there is no file {path} to report on")
    parts = []
    for chunk in divide_file(path, wine_type).chunks:
        for raw in read_chunk(path, chunk, wine_type):
            parts += [read_numbers(raw), np.full((len(raw.malformed), len(FEATURES)), np.nan)]
    numbers = pd.DataFrame(np.concatenate(parts), columns=list(FEATURES))
    numbers = numbers.where(np.isfinite(numbers))
    return numbers.assign(**{flag: numbers[flag].where(numbers[flag].isin((0, 1))) for flag in FLAGS})


def name_folder(span: Span) -> str:
    """The folder name of a window: its end in UTC, such as 2026-11-23T18-44-48."""
    return f"{datetime.fromtimestamp(span.until, UTC):%Y-%m-%dT%H-%M-%S}"


def _report_window(window: Window, part: Profile, ours: pd.DataFrame, of: str) -> Iterator[tuple[str, str, Any]]:
    """Yield name, title and report for each part of a window with enough predictions; `ours` are the model's."""
    answers = window.answers
    graded = ours[ours[TARGET].notna()]
    when = f"from {format_time(window.span.since)} to {format_time(window.span.until)}"
    if len(answers):
        wines = distinct_answers(answers)
        title = f"Inputs of {len(answers):,} answers on {len(wines):,} {ROWS} {when}, compared with {part.part}"
        yield INPUTS, title, _report_drift(wines, part, FEATURES)
    if len(ours) and part.predictions:
        title = (
            f"Predictions in {len(ours):,} answers{of} {when}, compared with those of cross-validation on {part.part}"
        )
        yield PREDICTIONS, title, _report_drift(distinct_answers(ours), part, PREDICTED)
    if len(graded) >= FEWEST_GRADED:
        yield QUALITY, f"Quality of the {len(graded):,} graded answers{of} {when}", _report_quality(graded)


def _report_file(wines: pd.DataFrame, file: str, part: Profile) -> Iterator[tuple[str, str, Any]]:
    """Yield name, title and report of a file of wines, columns with most missing values first."""
    holes = wines.isna().sum().sort_values(ascending=False, kind="stable")
    title = f"{holes.sum():,} of {wines.size:,} values missing in {file}, by column"
    from evidently.metrics import MissingValueCount

    yield MISSING, title, _run_report([MissingValueCount(column=name) for name in holes.index], wines)
    filled = [name for name in FEATURES if holes[name] < len(wines)]  # Evidently refuses to compare an empty column
    if filled:
        yield INPUTS, f"{len(wines):,} rows of {file}, compared with {part.part}", _report_drift(wines, part, filled)


def _report_drift(table: pd.DataFrame, part: Profile, columns: Sequence[str]) -> Any:
    """Plot columns beside the reference, with the test of drift.py instead of Evidently's."""
    from evidently.presets import DataDriftPreset

    _register_test(part, len(columns))
    drift = DataDriftPreset(columns=list(columns), method=TEST, threshold=KS_FLOOR, drift_share=ONE_COLUMN)
    return _run_report([drift], table[list(columns)], sample_reference(part)[list(columns)])


def _report_quality(graded: pd.DataFrame) -> Any:
    """Report the predictions' quality by the tasters' grades."""
    from evidently import BinaryClassification, MulticlassClassification
    from evidently.presets import ClassificationPreset

    grades = graded[[TARGET, "prediction"]].astype("int64")
    columns, found = {"target": TARGET, "prediction_labels": "prediction"}, np.unique(grades).tolist()
    # With two grades Evidently needs the name of a positive label, and fails without it (its issue 701).
    binary = len(found) == 2
    task = BinaryClassification(**columns, pos_label=found[1]) if binary else MulticlassClassification(**columns)
    return _run_report([ClassificationPreset()], grades, classification=[task])


def _run_report(
    metrics: list[Any], table: pd.DataFrame, reference: pd.DataFrame | None = None, **definition: list[Any]
) -> Any:
    from evidently import DataDefinition, Dataset, Report

    columns = {
        "numerical_columns": [name for name in table if name not in DISCRETE],
        "categorical_columns": [name for name in table if name in DISCRETE],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about columns with one value, and grades that do not occur
        current, beside = (
            None if side is None else Dataset.from_pandas(side, DataDefinition(**columns, **definition))
            for side in (table, reference)
        )
        return Report(metrics, include_tests=True).run(current, beside)


def _register_test(part: Profile, columns: int) -> None:
    """Register the test of drift.py with Evidently; a later call replaces it."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    marginals = _list_marginals(part)

    def judge(reference: pd.Series, current: pd.Series, kind: object, floor: float) -> tuple[float, bool]:  # noqa: ARG001
        ks, p = compare(marginals[str(reference.name)], part.wines, current.to_numpy("float64"))["KS"]
        return ks, ks >= floor and p * columns < ALPHA

    register_stattest(StatTest(TEST, TEST, [ColumnType.Numerical, ColumnType.Categorical]), judge)


def _list_marginals(part: Profile) -> dict[str, Marginal]:
    predicted = (part.predictions.predictions, part.predictions.confidence) if part.predictions else ()
    return part.features | dict(zip(PREDICTED, predicted, strict=False))


def _import_evidently() -> None:
    """Import Evidently without telemetry, and without Python 3.12's warning about an escape in its source."""
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Evidently reads it at import
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        import_module("evidently.presets")


def _write_all(folder: Path, reports: Iterator[tuple[str, str, Any]]) -> list[Path]:
    """Write reports of (name, title, report), and delete an earlier run's files that are not written again."""
    _import_evidently()
    written = [path for name, title, report in reports for path in _write_report(folder, name, title, report)]
    for path in (folder / f"{name}{end}" for name in (INPUTS, PREDICTIONS, QUALITY, MISSING) for end in ENDINGS):
        if path not in written:
            path.unlink(missing_ok=True)
    return written


def _write_report(folder: Path, name: str, title: str, report: Any) -> list[Path]:
    head = f"<title>{escape(title)}</title></head>"
    body = f'<body><p style="margin: 1em 2em; font-family: sans-serif">{escape(title)}.<br>{NO_ALARM}</p>'
    page = report.get_html_str(as_iframe=False).replace("</head>", head, 1).replace("<body>", body, 1)
    figures = json.loads(report.json(), parse_constant=lambda _: None)  # NaN and infinity are not valid JSON
    text = json.dumps({"title": title, **figures}, indent=1) + "\n"
    written = [folder / f"{name}{ending}" for ending in ENDINGS]
    for path, content in zip(written, (page, text), strict=True):
        write_atomically(path, content)
    return written
