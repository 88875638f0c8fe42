"""Reports as files: a page and the same figures as JSON, drawn by Evidently of a window or of a file of wines.

Nothing here decides an alarm; drift.py and alarm.py do, without Evidently. So that a page does not contradict them, its
columns are judged by the KS and floor of drift.py, at the points of the profile, not by a test of Evidently's. Such a
test would see the rows that the reference is rebuilt as, which lie anywhere between those points, where measurements
are rounded: of 5,000 wines with no drift at all it took six of the twelve columns for drifted.
"""

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
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
from deployment.prediction_log.windows import Span, Window, find_windows, read_window, require_window
from monitoring.drift import ALPHA, KS_FLOOR, compare, find_nearest
from monitoring.quality import FEWEST_GRADED
from settings import Settings
from wine_data.schema import FEATURES, RED, TARGET
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.bundle.profile import Marginal, Profile

REFERENCE_ROWS, SEED = 1_000, 0
PREDICTED = ("prediction", "confidence")
DISCRETE = (RED, "prediction", TARGET)  # drawn as bars; between two of their points there is nothing
ONE_COLUMN = 0.08  # share of drifted columns from which on a page says so: one of twelve, as for an alarm
TEST = "KS at the profile's points"
NAMES = INPUTS, PREDICTIONS, QUALITY, MISSING = "inputs", "predictions", "quality", "missing"
NO_ALARM = "For people to look at: nothing on this page decides an alarm, monitoring/alarm.py does."


def write_reports(window: Window, part: Profile, folder: Path, version: str | None = None) -> list[Path]:
    """Write the reports of a window as pages and JSON, each file whole or not at all; return their paths.

    Left out are all where nothing was answered, predictions where the profile has none, quality where fewer
    than FEWEST_GRADED answers are graded.

    Args:
        window: what the log holds.
        part: what it is compared with.
        folder: where the files go; it is made if need be.
        version: the model's, if predictions and quality are to be those of its answers only.
    """
    return _write_all(folder, _report_window(window, part, version))


def write_window_reports(window: Window, metadata: ModelMetadata, reports: Path) -> list[Path]:
    """Write the reports of a window beside what a champion learned from, into a folder named for when it ended."""
    part = find_nearest(window, metadata.profiles)
    return write_reports(window, part, reports / name_folder(window.span), metadata.version)


def report_batch(path: Path, part: Profile, folder: Path, wine_type: str = "") -> list[Path]:
    """Write what is missing in a file of wines and how its columns have drifted; errors as in read_file."""
    return _write_all(folder, _report_file(read_file(path, wine_type), path.name, part))


def sample_reference(part: Profile, rows: int = REFERENCE_ROWS) -> pd.DataFrame:
    """Lay a profile out as rows to draw beside others: evenly spaced quantiles, each column shuffled by itself.

    A row is no wine. Each column has the profile's distribution and none knows of another, which is enough: reports
    compare column by column.
    """
    random = np.random.default_rng(SEED)
    shares = (np.arange(rows) + 0.5) / rows
    return pd.DataFrame(
        {
            name: random.permutation(_find_quantiles(marginal, shares, name in DISCRETE))
            for name, marginal in _list_marginals(part).items()
        }
    )


def read_file(path: Path, wine_type: str = "") -> pd.DataFrame:
    """Read a file of wines laid out as FEATURES; a cell that is no number, or no colour, is NaN, as a hole is.

    A row that has too few or too many cells is a row of holes.

    Args:
        path: the file.
        wine_type: the colour of all its wines, where it has no such column.

    Raises:
        BadInputError: it is no file of wines.
        NotThereError: there is no such file.
    """
    if not path.is_file():
        raise NotThereError(f"there is no file {path} to report on")
    parts = []
    for chunk in divide_file(path, wine_type).chunks:
        for raw in read_chunk(path, chunk, wine_type):
            parts += [read_numbers(raw), np.full((len(raw.malformed), len(FEATURES)), np.nan)]
    numbers = pd.DataFrame(np.concatenate(parts), columns=list(FEATURES))
    numbers = numbers.where(np.isfinite(numbers))
    return numbers.assign(**{RED: numbers[RED].where(numbers[RED].isin((0, 1)))})


def read_newest_window(settings: Settings, now: float) -> Window:
    """Read the newest full window of the log.

    Raises:
        NotThereError: there is no log, or no full window yet; says how many wines must be asked for.
        BadInputError: the log is of another version.
    """
    spans = find_windows(settings.log_url, settings.window_rows, settings.window_hours, now, most=1)
    require_window(settings.log_url, settings.window_rows, settings.window_hours, now, spans)
    return read_window(settings.log_url, spans[-1])


def name_folder(span: Span) -> str:
    """A window's folder: when it ended, UTC, as 2026-11-23T18-44-48."""
    return f"{datetime.fromtimestamp(span.until, UTC):%Y-%m-%dT%H-%M-%S}"


def _report_window(window: Window, part: Profile, version: str | None) -> Iterator[tuple[str, str, Any]]:
    """Yield name, title and report of what a window has enough answers for."""
    answers = window.answers
    ours = answers if version is None else answers[answers["version"] == version]
    graded = ours[ours["quality"].notna()]
    since, until = (datetime.fromtimestamp(at, UTC) for at in (window.span.since, window.span.until))
    when = f"from {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC"
    of = f" of version {version}" if version else ""
    if len(answers):
        title = f"Inputs of {len(answers):,} answers {when}, beside {part.part}"
        yield INPUTS, title, _report_drift(answers, part, FEATURES)
    if len(ours) and part.predictions:
        title = f"Predictions in {len(ours):,} answers{of} {when}, beside those of cross-validation on {part.part}"
        yield PREDICTIONS, title, _report_drift(ours, part, PREDICTED)
    if len(graded) >= FEWEST_GRADED:
        yield QUALITY, f"Quality of the {len(graded):,} graded answers{of} {when}", _report_quality(graded)


def _report_file(wines: pd.DataFrame, file: str, part: Profile) -> Iterator[tuple[str, str, Any]]:
    """Yield name, title and report of a file of wines, the columns with most holes first."""
    holes = wines.isna().sum().sort_values(ascending=False, kind="stable")
    title = f"{holes.sum():,} of {wines.size:,} values missing in {file}, by column"
    yield MISSING, title, _report_missing(wines, holes.index)
    filled = [name for name in FEATURES if holes[name] < len(wines)]  # Evidently refuses to compare an empty column
    if filled:
        yield INPUTS, f"{len(wines):,} rows of {file}, beside {part.part}", _report_drift(wines, part, filled)


def _report_drift(table: pd.DataFrame, part: Profile, columns: Sequence[str]) -> Any:
    """Plot columns beside the reference, judged by the test of drift.py in place of Evidently's own."""
    _import_evidently()
    from evidently.presets import DataDriftPreset

    _register_test(part, len(columns))
    drift = DataDriftPreset(columns=list(columns), method=TEST, threshold=KS_FLOOR, drift_share=ONE_COLUMN)
    return _run_report([drift], table[list(columns)], sample_reference(part)[list(columns)])


def _report_missing(wines: pd.DataFrame, columns: Iterable[str]) -> Any:
    _import_evidently()
    from evidently.metrics import MissingValueCount

    return _run_report([MissingValueCount(column=name) for name in columns], wines)


def _report_quality(graded: pd.DataFrame) -> Any:
    """Report which predictions are right by the grades of tasters."""
    _import_evidently()
    from evidently import BinaryClassification, MulticlassClassification
    from evidently.presets import ClassificationPreset

    grades = graded[[TARGET, "prediction"]].astype("int64")
    columns, found = {"target": TARGET, "prediction_labels": "prediction"}, np.unique(grades).tolist()
    # Of two grades Evidently takes one for the positive label, and fails without its name (its issue 701).
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
        warnings.simplefilter("ignore")  # of columns with one value, and of grades that nobody gave
        current, beside = (
            None if side is None else Dataset.from_pandas(side, DataDefinition(**columns, **definition))
            for side in (table, reference)
        )
        return Report(metrics, include_tests=True).run(current, beside)


def _register_test(part: Profile, columns: int) -> None:
    """Tell Evidently of the test; a later call replaces it."""
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


def _find_quantiles(marginal: Marginal, shares: np.ndarray, discrete: bool) -> np.ndarray:
    if discrete:
        return np.array(marginal.points)[np.searchsorted(marginal.shares, shares)]
    quantiles: np.ndarray = np.interp(shares, marginal.shares, marginal.points)
    return quantiles


def _import_evidently() -> None:
    """Import Evidently for the first time: without its telling its makers, and without its warnings about itself.

    Since Python 3.12 its first import, which compiles it, warns of an invalid escape in one of its texts.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")  # read when it is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        import_module("evidently.presets")


def _write_all(folder: Path, drawn: Iterable[tuple[str, str, Any]]) -> list[Path]:
    """Write what was drawn; what lies there from an earlier look and is not drawn now goes."""
    written = [path for name, title, report in drawn for path in _write_report(folder, name, title, report)]
    for path in (folder / f"{name}{ending}" for name in NAMES for ending in (".html", ".json")):
        if path not in written:
            path.unlink(missing_ok=True)
    return written


def _write_report(folder: Path, name: str, title: str, report: Any) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    head = f"<title>{escape(title)}</title></head>"
    body = f'<body><p style="margin: 1em 2em; font-family: sans-serif">{escape(title)}.<br>{NO_ALARM}</p>'
    page = report.get_html_str(as_iframe=False).replace("</head>", head, 1).replace("<body>", body, 1)
    figures = json.dumps({"title": title, **_plain(report.dict())}, indent=1, allow_nan=False)
    written = [folder / f"{name}.html", folder / f"{name}.json"]
    for path, text in zip(written, (page, figures + "\n"), strict=True):
        write_atomically(path, text)
    return written


def _plain(value: Any) -> Any:
    """What JSON can say of a value: NumPy's numbers as numbers, NaN and infinity as null, all else as text."""
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
