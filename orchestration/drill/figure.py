"""The story of a drill in one picture: drift, quality and version, window by window."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monitoring.drift import KS_FLOOR
from monitoring.quality import Quality
from monitoring.watch import WindowReport
from wine_quality_training.figures import GREY, RED, WHITE

VERSION_COLOURS = (GREY, RED, WHITE)


@dataclass(frozen=True)
class Moment:
    """Something that happened at a time, seconds since 1970."""

    time: float
    label: str


def plot_story(
    windows: Sequence[WindowReport], qualities: Sequence[Quality | None], moments: Sequence[Moment], feature: str
) -> Figure:
    """Plot drift of a feature above measured quality, by window, with the moments between windows as lines.

    Args:
        windows: oldest first, all compared with the first version's reference.
        qualities: of each, by whatever version answered.
        moments: what happened when.
        feature: the one that drifts.
    """
    figure = Figure(figsize=(10, 6), dpi=110, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    positions = np.arange(len(windows))
    versions = [max(window.versions, key=lambda name: window.versions[name]) for window in windows]
    colours = [VERSION_COLOURS[(int(version) - 1) % len(VERSION_COLOURS)] for version in versions]
    _plot_drift(above, positions, windows, feature, colours)
    _plot_quality(below, positions, qualities, colours)
    below.set_xticks(
        positions, [f"{_clock(window.span.until)}\nversion {v}" for window, v in zip(windows, versions, strict=True)]
    )
    below.set_xlabel("end of the window, UTC, and the version that answered")
    _mark_moments((above, below), windows, moments)
    figure.suptitle("From drift to retraining and back: one bar a window of answers")
    return figure


def _plot_drift(
    axis: Axes, positions: np.ndarray, windows: Sequence[WindowReport], feature: str, colours: Sequence[str]
) -> None:
    checks = [next((c for c in window.checks if (c.kind, c.name) == ("inputs", feature)), None) for window in windows]
    axis.bar(positions, [check.figures["KS"] if check else 0.0 for check in checks], color=colours)
    axis.axhline(KS_FLOOR, color="black", linewidth=0.8, linestyle="--")
    axis.text(-0.45, KS_FLOOR + 0.01, "smaller is never an alarm", va="bottom", fontsize=8)
    axis.set(ylabel=f"KS of {feature}\nagainst version 1's reference", ylim=(0, 1))


def _plot_quality(
    axis: Axes, positions: np.ndarray, qualities: Sequence[Quality | None], colours: Sequence[str]
) -> None:
    for position, quality, colour in zip(positions, qualities, colours, strict=True):
        if quality:
            kappa, (low, high) = quality.metrics["kappa"], quality.intervals["kappa"]
            axis.errorbar(
                position, kappa, [[kappa - low], [high - kappa]], fmt="o", color="black", mfc=colour, capsize=4
            )
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set_ylabel("kappa by the tasters,\nwith 95 % interval")


def _mark_moments(axes: Sequence[Axes], windows: Sequence[WindowReport], moments: Sequence[Moment]) -> None:
    """Plot each moment before the first window that begins after it; those at one place share a line."""
    starts = np.array([window.span.since for window in windows])
    places: dict[float, list[str]] = {}
    for moment in moments:
        places.setdefault(float(np.searchsorted(starts, moment.time)) - 0.5, []).append(moment.label)
    for place, labels in places.items():
        for axis in axes:
            axis.axvline(place, color="black", linewidth=0.8, linestyle=":")
        axes[0].text(place + 0.04, 0.97, "\n".join(labels), va="top", fontsize=8)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)


def _clock(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%H:%M:%S}"
