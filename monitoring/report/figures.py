"""The monitoring plots: traffic, predictions, quality and drift.

Each function returns a matplotlib Figure and saves nothing. Every window is a column of the same width: on a time axis
a busy hour would be a thin line and a gap half the plot. The label below is the end of the window in UTC.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from figure_style import GREY, RED, WHITE, make_axes
from monitoring.drift import INPUTS, PREDICTIONS, QUALITY, REFUSALS
from monitoring.quality import LOW_CONFIDENCE_SHARE, name_coverage
from monitoring.report.marks import INK, SMALL, Mark, plot_marks
from monitoring.watch import WindowReport
from wine_data.schema import FEATURES, GRADES
from wine_quality_training.bundle.grade_sets import name_percent

STRONGEST = 3.0  # multiples of the floor; stronger drift has the same colour
PALE, UNKNOWN = "#f8f5ee", "#d3d3d3"
NARROW, WIDE = 5.2, 10.8  # inches: one column of the page, and both
TEXT = 8.5  # points
STRENGTHS = LinearSegmentedColormap.from_list(
    "strength", [(0, PALE), (1 / STRONGEST, "#ece3bf"), (0.55, WHITE), (1, RED)]
)
MIXED = LinearSegmentedColormap.from_list("grades", [(0, "#f3ecd2"), (0.5, WHITE), (1, RED)])
# The rows of the drift plot: the kind of their checks and the names; no names: all of the kind.
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (INPUTS, (name, f"{name} outside")) for name in FEATURES},
    **{name: (PREDICTIONS, (name,)) for name in ("predicted grades", "confidence")},
    **{name: (QUALITY, (name,)) for name in ("tasters' grades", "bias", "error", "coverage")},
    "refusals": (REFUSALS, ()),
}


def plot_traffic(windows: Sequence[WindowReport], marks: Sequence[Mark] = ()) -> Figure:
    """Plot how many wines were predicted and refused."""
    figure, axis = _lay_out(windows, marks)
    answered = [window.answered for window in windows]
    refused = [window.asked - window.answered for window in windows]
    axis.bar(range(len(windows)), answered, width=0.8, color=GREY, label="answered")
    axis.bar(range(len(windows)), refused, width=0.8, bottom=answered, color=RED, label="refused")
    axis.set_ylabel("wines", fontsize=TEXT)
    _start_at_zero(axis)
    _explain(figure, axis)
    return figure


def plot_pace(windows: Sequence[WindowReport], marks: Sequence[Mark] = ()) -> Figure:
    """Plot the number of predictions per minute."""
    figure, axis = _lay_out(windows, marks)
    _plot(axis, [window.health.per_minute if window.health else None for window in windows], INK, "answers a minute")
    axis.set_ylabel("answers a minute", fontsize=TEXT)
    _start_at_zero(axis)
    return figure


def plot_latency(windows: Sequence[WindowReport], marks: Sequence[Mark] = ()) -> Figure:
    """Plot the latency in milliseconds: p50, p95 and p99."""
    figure, axis = _lay_out(windows, marks)
    shown = {"p50": GREY, "p95": WHITE, "p99": RED}
    health = [window.health for window in windows]
    for name, colour in shown.items():
        _plot(axis, [getattr(each, f"{name}_ms") if each else None for each in health], colour, name)
    axis.set_ylabel("ms", fontsize=TEXT)
    if any(each and each.p99_ms > 20 * max(each.p50_ms, 0.1) for each in health):  # else the median lies on the axis
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
    else:
        _start_at_zero(axis)
    _explain(figure, axis)
    return figure


def plot_grades(windows: Sequence[WindowReport], marks: Sequence[Mark] = ()) -> Figure:
    """Plot the share of each predicted grade."""
    figure, axis = _lay_out(windows, marks)
    below = np.zeros(len(windows))
    for grade in GRADES:
        shares = np.array([window.grades.get(str(grade), 0) / max(window.answered, 1) for window in windows])
        colour = MIXED((grade - GRADES[0]) / (GRADES[-1] - GRADES[0]))
        axis.bar(range(len(windows)), shares, width=0.9, bottom=below, color=colour, label=str(grade))
        below += shares
    axis.set(ylim=(0, 1))
    _show_shares(axis, "of the answers")
    _explain(figure, axis, title="grade")
    return figure


def plot_confidence(windows: Sequence[WindowReport], marks: Sequence[Mark] = ()) -> Figure:
    """Plot the share of predictions with a lower confidence than 90 % of the reference."""
    figure, axis = _lay_out(windows, marks)
    axis.axhline(LOW_CONFIDENCE_SHARE, color=GREY, linewidth=1.2, linestyle="dotted", label="in the training data")
    _plot(axis, [window.low_confidence for window in windows], RED, "low confidence")
    _start_at_zero(axis, least=2 * LOW_CONFIDENCE_SHARE)
    _show_shares(axis, "of the answers")
    _explain(figure, axis)
    return figure


def plot_quality(windows: Sequence[WindowReport], marks: Sequence[Mark] = (), promised: float | None = None) -> Figure:
    """Plot the accuracy: measured on the graded wines with its 95 % interval, and estimated.

    `promised` is the accuracy in cross-validation.
    """
    figure, axis = _lay_out(windows, marks)
    if promised is not None:
        axis.axhline(promised, color=GREY, linewidth=1.2, linestyle="dotted", label="in cross-validation")
    numbers = [number for number, window in enumerate(windows) if window.quality]
    measured = [window.quality for window in windows if window.quality]
    accuracy = np.array([quality.metrics["accuracy"] for quality in measured])
    ends = np.array([quality.intervals["accuracy"] for quality in measured]).reshape(-1, 2).T
    label = "measured" if measured else "measured: none yet"
    style: dict[str, Any] = {"fmt": "o", "markersize": 4, "color": RED, "elinewidth": 1.2, "capsize": 2}
    axis.errorbar(numbers, accuracy, yerr=np.abs(ends - accuracy), label=label, **style)
    _plot(axis, [window.estimate for window in windows], INK, "estimate from confidence", linestyle="dashed")
    _widen(axis, least=0.2)
    _show_shares(axis, "right grades")
    _explain(figure, axis)
    return figure


def plot_coverage(windows: Sequence[WindowReport], marks: Sequence[Mark] = (), levels: Sequence[str] = ()) -> Figure:
    """Plot the coverage of the grade sets on graded wines, with its 95 % interval, at each level."""
    figure, axis = _lay_out(windows, marks)
    known = [number for number, window in enumerate(windows) if window.quality]
    shown = [window.quality for window in windows if window.quality]
    for level, colour in zip(levels, (WHITE, RED), strict=False):
        name = name_coverage(level)
        places = [number for number, quality in zip(known, shown, strict=True) if name in quality.metrics]
        measured = [quality for quality in shown if name in quality.metrics]
        shares = np.array([quality.metrics[name] for quality in measured])
        ends = np.array([quality.intervals[name] for quality in measured]).reshape(-1, 2).T
        axis.axhline(float(level), color=colour, linewidth=1.2, linestyle="dotted")
        label = f"sets of {name_percent(level)} %" + ("" if measured else ": none yet")
        style: dict[str, Any] = {"fmt": "o", "markersize": 4, "color": colour, "elinewidth": 1.2, "capsize": 2}
        axis.errorbar(places, shares, yerr=np.abs(ends - shares), label=label, **style)
    _widen(axis, least=0.3)
    _show_shares(axis, "of the graded wines")
    _explain(figure, axis)
    return figure


def plot_drift(windows: Sequence[WindowReport], marks: Sequence[Mark] = ()) -> Figure:
    """Plot the distance of each monitored quantity from the reference, one row each, with a dot for drift."""
    rows = list(ROWS)
    figure, axis = _lay_out(windows, marks, width=WIDE, height=0.23 * len(rows) + 1.2)
    strengths, drifted = tabulate_drift(windows)
    edges = np.arange(len(windows) + 1) - 0.5, np.arange(len(rows) + 1) - 0.5
    cells = np.ma.masked_invalid(np.clip(strengths, 0, STRONGEST))
    shades = STRENGTHS.with_extremes(bad=UNKNOWN)
    axis.pcolormesh(*edges, cells, cmap=shades, vmin=0, vmax=STRONGEST, edgecolors="white", linewidth=0.8)
    row, column = np.nonzero(drifted)
    label = "drifted: above its floor, and certain"
    dots = axis.scatter(column, row, s=14, color="white", edgecolors=INK, linewidths=0.7, zorder=3, label=label)
    axis.set(ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)))
    axis.yaxis.tick_right()  # beside the newest window, which phones show first
    axis.set_yticklabels([name.replace("_", " ") for name in rows], fontsize=TEXT)
    for number, (above, below) in enumerate(pairwise(kind for kind, _ in ROWS.values())):
        if above != below:
            axis.axhline(number + 0.5, color=INK, linewidth=0.8)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    legend = [*_list_shades(), dots]
    figure.legend(handles=legend, loc="outside upper right", ncols=3, fontsize=TEXT, frameon=False)
    return figure


def tabulate_drift(windows: Sequence[WindowReport]) -> tuple[np.ndarray, np.ndarray]:
    """Strength and verdict of ROWS in each window: two tables (rows, windows); a strength is NaN if not evaluated.

    A feature's strength is the larger of two: of its distribution, and of its share out of range. Those of refusals are
    added up.
    """
    strengths = np.full((len(ROWS), len(windows)), math.nan)
    drifted = np.zeros(strengths.shape, dtype=bool)
    for row, (kind, names) in enumerate(ROWS.values()):
        for column, window in enumerate(windows):
            checks = [check for check in window.checks if check.kind == kind and (check.name in names or not names)]
            if checks:
                join = sum if kind == REFUSALS else max
                strengths[row, column] = join(check.strength for check in checks)
                drifted[row, column] = any(check.drifted for check in checks)
    return strengths, drifted


def _list_shades() -> list[Patch]:
    labels = {0: "0: as the reference", 1: "1: its floor", 2: "2", 3: "3 times its floor, or more"}
    shades = [
        Patch(facecolor=STRENGTHS(strength / STRONGEST), edgecolor=GREY, linewidth=0.5, label=label)
        for strength, label in labels.items()
    ]
    return [*shades, Patch(facecolor=UNKNOWN, label="not checked: too few wines")]


def _lay_out(
    windows: Sequence[WindowReport], marks: Sequence[Mark], width: float = NARROW, height: float = 2.9
) -> tuple[Figure, Axes]:
    """Make a figure with one column per window, and draw the marks."""
    figure, (axis,) = make_axes(1, 1, height=height, width=width)
    axis.tick_params(labelsize=TEXT)
    axis.set_xlim(-0.5, len(windows) - 0.5)
    plot_marks(axis, windows, marks, columns_a_point=len(windows) / (width * 72 * 0.86))
    _label_times(axis, windows, most=round(width * 0.9))
    return figure, axis


def _label_times(axis: Axes, windows: Sequence[WindowReport], most: int) -> None:
    """Label some of the windows with their end; the date only if it changes."""
    ends = [datetime.fromtimestamp(window.span.until, UTC) for window in windows]
    step = max(1, math.ceil(len(windows) / most))
    shown = range((len(windows) - 1) % step, len(windows), step)
    quick = len(ends) > 1 and (ends[-1] - ends[0]).total_seconds() < 60 * len(shown)
    labels, date = [], ""
    for number in shown:
        end = ends[number]
        labels.append(f"{end:%H:%M:%S}" if quick else f"{end:%H:%M}")
        if f"{end.day} {end:%b}" != date:
            date = f"{end.day} {end:%b}"
            labels[-1] += f"\n{date}"
    axis.set_xticks(list(shown), labels, fontsize=SMALL)
    axis.set_xlabel("end of the window, UTC", fontsize=SMALL)


def _plot(axis: Axes, values: Sequence[float | None], colour: str, label: str, linestyle: str = "solid") -> None:
    """Plot a line with a gap, not a zero, for unknown values; dots show a single window between two gaps."""
    known = [math.nan if value is None else value for value in values]
    axis.plot(range(len(known)), known, color=colour, linestyle=linestyle, linewidth=1.5, marker=".", label=label)


def _start_at_zero(axis: Axes, least: float = 0) -> None:
    highest = axis.dataLim.y1 if math.isfinite(axis.dataLim.y1) else 1.0
    axis.set_ylim(0, max(1.08 * highest, least))
    axis.yaxis.set_major_locator(MaxNLocator(5))


def _widen(axis: Axes, least: float) -> None:
    """Set a minimum range of the axis, so that small changes do not look large."""
    low, high = axis.get_ylim()
    if high - low < least:
        axis.set_ylim((low + high - least) / 2, (low + high + least) / 2)


def _show_shares(axis: Axes, of: str) -> None:
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axis.set_ylabel(of, fontsize=TEXT)


def _explain(figure: Figure, axis: Axes, title: str = "") -> None:
    """Put the legend above the plot, where it hides nothing."""
    handles, labels = axis.get_legend_handles_labels()
    if title:
        handles, labels = [Patch(alpha=0), *handles], [title, *labels]
    short = all(len(label) < 4 for label in labels[1:])
    columns = len(labels) if sum(map(len, labels)) < 58 else 2
    style = {"fontsize": TEXT, "borderpad": 0.1, "handlelength": 1.1 if short else 1.8}
    style["columnspacing"] = 1 if short else 1.6
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, **style)
