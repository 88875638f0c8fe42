"""Windows of the prediction log: find them, and read one.

By count, windows are cut backwards from now, with a fixed number of requested wines each. Refused wines count too: a
unit mistake may be refused before prediction, and would otherwise stay unseen. A batch is refused as a whole, with all
its wines. Wines with the same time, such as the rows of a batch, stay together, so a window may hold more. By time,
windows are the full hours (or days, from midnight UTC) before now; one without wines is left out. A gap in the traffic
makes a long window by count and none by time.

Rows dated in the future, by a wrong clock, belong to no window until that time comes. A row that cannot be read as a
prediction is left out and counted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import pandas as pd

from commands import NotThereError
from deployment.prediction_log.reader import MOST_ROWS, REFUSED, find_asked, read_answers, read_refusals, read_times
from wine_data.schema import FEATURES, GRADES


@dataclass(frozen=True)
class Span:
    """A time span, including `since`, excluding `until`; seconds since 1970, UTC."""

    since: float
    until: float


@dataclass(frozen=True)
class Window:
    """The rows of the log in one span.

    `answers` has the columns of read_answers and `confidence`, the probability of the prediction; `refusals` those of
    read_refusals, one row per error. `corrupt` counts unreadable rows.
    """

    span: Span
    answers: pd.DataFrame
    refusals: pd.DataFrame
    corrupt: int = 0

    @cached_property
    def refused(self) -> pd.DataFrame:
        """The errors of requests refused as invalid wines (422)."""
        return self.refusals[self.refusals["status"] == REFUSED]

    @property
    def asked(self) -> int:
        """The number of requested wines: predicted or refused."""
        return len(self.answers) + int(self.refused.groupby("request_id")["wines"].max().sum())

    @property
    def labelled(self) -> pd.DataFrame:
        """The predictions that have a taster's grade."""
        return self.answers[self.answers["quality"].notna()]


def format_time(seconds: float) -> str:
    """Format a time as 2026-11-23 18:44:48 UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def cut_by_count(times: Sequence[float], rows: int) -> list[Span]:
    """Cut windows of at least `rows` wines backwards from the newest; the oldest rest is left out. Oldest first."""
    ordered = np.sort(np.asarray(times, dtype="float64"))
    spans: list[Span] = []
    end = len(ordered)
    while end >= rows:
        since = float(ordered[end - rows])
        spans.append(Span(since, spans[-1].since if spans else math.nextafter(float(ordered[-1]), math.inf)))
        end = int(np.searchsorted(ordered, since, side="left"))
    return spans[::-1]


def find_windows(url: str, rows: int, hours: float, now: float, most: int) -> list[Span]:
    """The newest windows of a log, oldest first.

    Args:
        url: the log's database.
        rows: wines per window, if `hours` is 0.
        hours: length of a window.
        now: later rows are left out.
        most: the largest number of windows.
    """
    if hours:
        seconds, newest = hours * 3600, math.floor(now / (hours * 3600))
        spans = [Span(number * seconds, (number + 1) * seconds) for number in range(newest - most, newest)]
        asked = find_asked(url, [(span.since, span.until) for span in spans])
        return [span for span, found in zip(spans, asked, strict=True) if found]
    return cut_by_count(read_times(url, until=now, last=(most + 1) * rows), rows)[-most:]


def require_window(url: str, rows: int, hours: float, now: float, found: Sequence[object]) -> None:
    """Raise NotThereError with what is missing if no window was found; arguments as in find_windows."""
    if found:
        return
    if hours:
        raise NotThereError(
            f"there was no request in the last full windows of {hours:g} hours (WINE_WINDOW_HOURS): send wines "
            "(make simulate) and wait until its window is over, or set WINE_WINDOW_HOURS=0"
        )
    asked = len(read_times(url, until=now, last=rows))
    raise NotThereError(
        f"there is no full window yet: the log has {asked:,} of {rows:,} wines (WINE_WINDOW_ROWS). "
        f"Send {rows - asked:,} more: make simulate"
    )


def select_model(answers: pd.DataFrame, version: str, run_id: str) -> pd.DataFrame:
    """The predictions of one model. Versions start again after make reset, so the run id identifies it."""
    return answers[(answers["version"] == version) & (answers["run_id"] == run_id)]


def read_window(url: str, span: Span) -> Window:
    """Read a span of the log; if it has more than 200,000 predictions or refusals, only its last part."""
    answers, refusals = read_answers(url, span.since, span.until), read_refusals(url, span.since, span.until)
    cut = [float(rows["time"].iloc[0]) for rows in (answers, refusals) if len(rows) == MOST_ROWS]
    if cut:  # cut both to the same span, else shares would be wrong
        span = replace(span, since=max(cut))
        answers, refusals = (rows[rows["time"] >= span.since].copy() for rows in (answers, refusals))
    pairs = zip(answers["probabilities"], answers["prediction"], strict=True)
    answers["confidence"] = np.array([_find_confidence(*pair) for pair in pairs], dtype="float64")
    valid = answers[[*FEATURES, "confidence"]].notna().all(axis="columns") & answers["prediction"].isin(GRADES)
    return Window(span, answers[valid].reset_index(drop=True), refusals, int((~valid).sum()))


def _find_confidence(probabilities: object, prediction: object) -> float:
    """The predicted grade's number in a JSON object, NaN if missing; text search is faster than parsing."""
    try:
        grade = f'"{int(prediction)}"'  # type: ignore[call-overload]
        return float(str(probabilities).partition(grade)[2].lstrip(" :").partition(",")[0].rstrip("} "))
    except (TypeError, ValueError):
        return math.nan
