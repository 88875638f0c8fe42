"""Marks on the monitoring plots: alarms, promotions and rollbacks, as vertical lines with labels."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from figure_style import RED
from monitoring.watch import WindowReport

ALARM, PROMOTION, ROLLBACK = "alarm", "promotion", "rollback"
INK = "#24201f"
SMALL = 7.5  # points
LANES = 3  # lines of labels above a plot
LINES = {ALARM: (RED, "solid"), PROMOTION: (INK, "dashed"), ROLLBACK: (INK, "dotted")}


@dataclass(frozen=True)
class Mark:
    """An event: its time in seconds since 1970, a short label, and ALARM, PROMOTION or ROLLBACK."""

    time: float
    label: str
    kind: str


@dataclass
class _Band:
    """Equal marks joined from one position to another, in columns."""

    mark: Mark
    start: float
    end: float
    count: int = 1


def plot_marks(axis: Axes, windows: Sequence[WindowReport], marks: Sequence[Mark], columns_a_point: float) -> None:
    """Plot marks as lines with labels; equal marks in neighbouring columns form one band."""
    bands = _join_marks(windows, marks)
    for band in bands:
        colour, style = LINES[band.mark.kind]
        for place in sorted({band.start, band.end}):
            axis.axvline(place, color=colour, linestyle=style, linewidth=1, clip_on=False, zorder=2.5)
        if band.start < band.end:
            axis.axvspan(band.start, band.end, color=colour, alpha=0.12, linewidth=0, zorder=0)
            line: dict[str, Any] = {"color": colour, "linewidth": 3, "solid_capstyle": "butt", "clip_on": False}
            axis.plot([band.start, band.end], [1, 1], transform=axis.get_xaxis_transform(), **line)
    _label_bands(axis, bands, columns_a_point)


def _join_marks(windows: Sequence[WindowReport], marks: Sequence[Mark]) -> list[_Band]:
    """Join equal marks in neighbouring columns, so that a long alarm does not hide the plot.

    Marks before the first window are left out; those after the last one are at the end.
    """
    ends = [window.span.until for window in windows]
    bands: list[_Band] = []
    for mark in sorted(set(marks), key=lambda mark: (mark.kind, mark.label, mark.time)):
        if not windows or mark.time < windows[0].span.since:
            continue
        number = bisect_left(ends, mark.time)
        place = number - 0.5
        if number < len(windows):
            span = windows[number].span
            place += max(mark.time - span.since, 0) / (span.until - span.since)
        last = bands[-1] if bands else None
        if last and (last.mark.kind, last.mark.label) == (mark.kind, mark.label) and place - last.end <= 1.5:
            last.end = place
            last.count += 1
        else:
            bands.append(_Band(mark, place, place))
    return bands


def _label_bands(axis: Axes, bands: Sequence[_Band], columns_a_point: float) -> None:
    """Write the labels above an axis, each in the lowest line with room for it; without room, no label.

    Promotions and rollbacks come first: they are few, and an alarm has its own colour.
    """
    lanes: list[list[tuple[float, float]]] = [[] for _ in range(LANES)]
    left, right = axis.get_xlim()
    for band in sorted(bands, key=lambda band: band.mark.kind == ALARM):
        text = band.mark.label + (f" \N{MULTIPLICATION SIGN}{band.count}" if band.count > 1 else "")
        half = min((len(text) * 0.56 * SMALL / 2 + 3) * columns_a_point, (right - left) / 2)
        place = min(max((band.start + band.end) / 2, left + half), right - half)
        free = (n for n, lane in enumerate(lanes) if all(abs(place - at) >= half + room for at, room in lane))
        if (lane := next(free, None)) is not None:
            lanes[lane].append((place, half))
            offset = 0, 3 + lane * (SMALL + 2.5)
            style: dict[str, Any] = {"fontsize": SMALL, "color": LINES[band.mark.kind][0], "parse_math": False}
            style |= {"ha": "center", "va": "bottom", "annotation_clip": False}
            axis.annotate(text, (place, 1), offset, axis.get_xaxis_transform(), "offset points", **style)
