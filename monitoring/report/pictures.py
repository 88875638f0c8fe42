"""The pictures of the page, each with its title and the sentence that says how to read it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from experiment_tracking.registry.promotion import PROMOTED, ROLLED_BACK, Record
from monitoring.alarm import DRIFTED, OF
from monitoring.report.figures import (
    plot_confidence,
    plot_drift,
    plot_grades,
    plot_latency,
    plot_pace,
    plot_quality,
    plot_traffic,
)
from monitoring.report.marks import ALARM, PROMOTION, ROLLBACK, Mark
from monitoring.report.record import MonitoringRun
from monitoring.report.svg import render_svg
from monitoring.watch import Watch

LONGEST_LABEL = 14  # characters of a version beside a line in a picture
TEXTS = {  # title and caption
    "drift": (
        "Drift, by what is watched",
        "The darker a cell, the further its window lies from what the model learned from, as a multiple of what "
        "matters; a dot says that it is certain too, and a check with dots in the newest window and in "
        f"{DRIFTED} of the last {OF} raises an alarm.",
    ),
    "quality": (
        "Accuracy",
        "Dots are measured on the wines that tasters have graded since, with the 95 % interval of so few wines; "
        "the dashed line is an estimate from the model's own confidence, and cannot see a change of taste.",
    ),
    "confidence": (
        "Low confidence",
        "The share of answers that the model was less sure of than of nine tenths of the wines it learned from: "
        "well over the dotted line it meets wines that it does not know.",
    ),
    "grades": (
        "Predicted grades",
        "Each column is split by the grades that were answered, the lowest below and the highest on top.",
    ),
    "traffic": ("Traffic", "The wines of each window, those that were refused as no possible wine in red on top."),
    "pace": ("Pace", "How many answers there were a minute; a gap is a window without any."),
    "latency": (
        "Latency",
        "Half of a window's answers took no longer than p50, 95 % no longer than p95 and 99 % no longer than p99.",
    ),
}


@dataclass(frozen=True)
class Picture:
    """A figure with its title, the sentence that says how to read it, and whether it takes the page's whole width."""

    name: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False

    @property
    def svg(self) -> Markup:
        """The figure as SVG, which needs no escaping."""
        return Markup(render_svg(self.name, self.title, self.figure))


def make_marks(looks: Sequence[MonitoringRun], records: Sequence[Record]) -> list[Mark]:
    """What the pictures mark: alarms at the end of their window, promotions and rollbacks when they were."""
    marks = [Mark(look.until, "alarm", ALARM) for look in looks if look.reason]
    for record in records:
        if record.event == PROMOTED:
            marks.append(Mark(record.when.timestamp(), f"version {_shorten(record.version)}", PROMOTION))
        elif record.event == ROLLED_BACK:
            marks.append(Mark(record.when.timestamp(), f"back to {_shorten(record.version)}", ROLLBACK))
    return marks


def plot_pictures(watch: Watch, marks: Sequence[Mark]) -> list[Picture]:
    """Plot all pictures of the page, in its order."""
    windows, promised = watch.windows, watch.metadata.metrics.get("leak-free.cv.accuracy")
    figures = {
        "drift": plot_drift(windows, marks),
        "quality": plot_quality(windows, marks, promised),
        "confidence": plot_confidence(windows, marks),
        "grades": plot_grades(windows, marks),
        "traffic": plot_traffic(windows, marks),
        "pace": plot_pace(windows, marks),
        "latency": plot_latency(windows, marks),
    }
    return [Picture(name, *TEXTS[name], figure, wide=name == "drift") for name, figure in figures.items()]


def _shorten(text: str) -> str:
    """Keep of a text what a picture has room for, and an SVG may hold."""
    printable = "".join(character for character in text if character.isprintable())
    return printable if len(printable) <= LONGEST_LABEL else f"{printable[: LONGEST_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
