"""Marks on the pictures of monitoring: alarms, promotions and rollbacks, as vertical lines with a label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes

from monitoring.watch import WindowReport
from wine_quality_training.figures import RED

ALARM, PROMOTION, ROLLBACK = "alarm", "promotion", "rollback"
INK = "#24201f"
SMALL = 7.5  # points
LANES = 3  # lines of labels above a picture
LINES = {ALARM: (RED, "solid"), PROMOTION: (INK, "dashed"), ROLLBACK: (INK, "dotted")}


@dataclass(frozen=True)
class Mark:
    """What happened at a time, seconds since 1970: a label of a word or two, and ALARM, PROMOTION or ROLLBACK."""

    time: float
    label: str
    kind: str


@dataclass(frozen=True)
class _Run:
    """Marks that say the same, from one place in columns to another."""

    start: float
    end: float
    mark: Mark
    count: int = 1


def plot_marks(axis: Axes, windows: Sequence[WindowReport], marks: Sequence[Mark], columns_a_point: float) -> None:
    """Plot marks as lines with labels; those that say the same in neighbouring columns as one band."""
    runs = list(_join_marks(list(_place_marks(windows, marks))))
    for run in runs:
        colour, style = LINES[run.mark.kind]
        for place in sorted({run.start, run.end}):
            axis.axvline(place, color=colour, linestyle=style, linewidth=1, clip_on=False, zorder=2.5)
        if run.start < run.end:
            axis.axvspan(run.start, run.end, color=colour, alpha=0.12, linewidth=0, zorder=0)
            axis.plot(
                [run.start, run.end],
                [1, 1],
                color=colour,
                linewidth=3,
                solid_capstyle="butt",
                transform=axis.get_xaxis_transform(),
                clip_on=False,
            )
    _label_runs(axis, runs, columns_a_point)


def _place_marks(windows: Sequence[WindowReport], marks: Sequence[Mark]) -> Iterator[tuple[float, Mark]]:
    """The position of each mark, in columns: none before the first window, the end for what came since the last."""
    for mark in sorted(dict.fromkeys(marks), key=lambda mark: mark.time):
        if not windows or mark.time < windows[0].span.since:
            continue
        place = len(windows) - 0.5
        for number, window in enumerate(windows):
            since, until = window.span.since, window.span.until
            if mark.time <= until:
                place = number - 0.5 + max(mark.time - since, 0) / (until - since)
                break
        yield place, mark


def _join_marks(placed: Sequence[tuple[float, Mark]]) -> Iterator[_Run]:
    """Join marks that say the same in neighbouring columns; an alarm that lasts would else hide the picture."""
    runs: list[_Run] = []
    for place, mark in sorted(placed, key=lambda each: (each[1].kind, each[1].label, each[0])):
        last = runs[-1] if runs else None
        if last and (last.mark.kind, last.mark.label) == (mark.kind, mark.label) and place - last.end <= 1.5:
            runs[-1] = replace(last, end=place, count=last.count + 1)
        else:
            runs.append(_Run(place, place, mark))
    yield from runs


def _label_runs(axis: Axes, runs: Sequence[_Run], columns_a_point: float) -> None:
    """Write the labels above an axis, each in the lowest line with room for it; where all are full, none.

    Moves of the champion come first: there are few of them, and an alarm has its own colour.
    """
    lanes: list[list[tuple[float, float]]] = [[] for _ in range(LANES)]
    left, right = axis.get_xlim()
    for run in sorted(runs, key=lambda run: run.mark.kind == ALARM):
        text = run.mark.label + (f" \N{MULTIPLICATION SIGN}{run.count}" if run.count > 1 else "")
        half = min((len(text) * 0.56 * SMALL / 2 + 3) * columns_a_point, (right - left) / 2)
        place = min(max((run.start + run.end) / 2, left + half), right - half)
        free = (n for n, lane in enumerate(lanes) if all(abs(place - at) >= half + room for at, room in lane))
        if (lane := next(free, None)) is not None:
            lanes[lane].append((place, half))
            axis.annotate(
                text,
                (place, 1),
                (0, 3 + lane * (SMALL + 2.5)),
                axis.get_xaxis_transform(),
                "offset points",
                ha="center",
                va="bottom",
                fontsize=SMALL,
                color=LINES[run.mark.kind][0],
                parse_math=False,
                annotation_clip=False,
            )
