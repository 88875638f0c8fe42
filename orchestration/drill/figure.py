"""A drill in one figure: drift, quality and version, window by window."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figure_style import GREY, RED, WHITE, make_axes
from monitoring.drift import KS_FLOOR
from monitoring.quality import Quality
from monitoring.watch import WindowReport

VERSION_COLOURS = {"1": GREY, "2": RED}


@dataclass(frozen=True)
class Moment:
    """An event and its time, in seconds since 1970."""

    time: float
    label: str


def plot_story(
    windows: Sequence[WindowReport], qualities: Sequence[Quality | None], moments: Sequence[Moment], feature: str
) -> Figure:
    """Plot the drift of a feature above the measured quality, by window, with moments between windows as lines.

    All windows, oldest first, are compared with the first version's reference, whatever version served.
    """
    figure, (above, below) = make_axes(2, 1, height=3, width=10, share="x")
    versions = [max(window.versions, key=lambda name: window.versions[name]) for window in windows]
    colours = [VERSION_COLOURS.get(version, WHITE) for version in versions]
    _plot_drift(above, windows, feature, colours)
    _plot_quality(below, qualities, colours)
    ends = [datetime.fromtimestamp(window.span.until, UTC) for window in windows]
    below.set_xticks(
        range(len(windows)), [f"{end:%H:%M:%S}\nversion {v}" for end, v in zip(ends, versions, strict=True)]
    )
    below.set_xlabel("end of the window, UTC, and the version that answered")
    _mark_moments((above, below), windows, moments)
    figure.suptitle("A drill, window by window: drift, alarm, retraining, promotion and rollback")
    return figure


def _plot_drift(axis: Axes, windows: Sequence[WindowReport], feature: str, colours: Sequence[str]) -> None:
    checks = [next((c for c in window.checks if (c.kind, c.name) == ("inputs", feature)), None) for window in windows]
    axis.bar(range(len(windows)), [check.figures["KS"] if check else 0.0 for check in checks], color=colours)
    axis.axhline(KS_FLOOR, color="black", linewidth=0.8, linestyle="--")
    axis.text(-0.45, KS_FLOOR + 0.01, "below this line nothing is an alarm", va="bottom", fontsize=8)
    axis.set(ylabel=f"KS of {feature}\nagainst version 1's reference", ylim=(0, 1))


def _plot_quality(axis: Axes, qualities: Sequence[Quality | None], colours: Sequence[str]) -> None:
    for place, (quality, colour) in enumerate(zip(qualities, colours, strict=True)):
        if quality:
            kappa, (low, high) = quality.metrics["kappa"], quality.intervals["kappa"]
            axis.errorbar(place, kappa, [[kappa - low], [high - kappa]], fmt="o", color="black", mfc=colour, capsize=4)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set_ylabel("kappa by the tasters,\nwith 95 % interval")


def _mark_moments(axes: Sequence[Axes], windows: Sequence[WindowReport], moments: Sequence[Moment]) -> None:
    """Plot each moment before the first window that starts after it; moments at the same place share a line."""
    starts = np.array([window.span.since for window in windows])
    places: dict[float, list[str]] = {}
    for moment in moments:
        places.setdefault(float(np.searchsorted(starts, moment.time)) - 0.5, []).append(moment.label)
    for axis in axes:
        for place in places:
            axis.axvline(place, color="black", linewidth=0.8, linestyle=":")
    for place, labels in places.items():
        axes[0].text(place + 0.04, 0.97, "\n".join(labels), va="top", fontsize=8)
