"""The pictures of the page, each with its title and the sentence that explains how to read it, as SVG."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib as mpl
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
    """A figure with its title and the sentence that explains it; a wide one takes the page's whole width."""

    name: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False

    @property
    def svg(self) -> Markup:
        """The figure as SVG, which needs no escaping."""
        return Markup(_render_svg(self.name, self.title, self.figure))


def make_marks(runs: Sequence[MonitoringRun], records: Sequence[Record]) -> list[Mark]:
    """Mark alarms at the end of their window, promotions and rollbacks when they happened."""
    marks = [Mark(run.until, "alarm", ALARM) for run in runs if run.reason]
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


def _render_svg(name: str, title: str, figure: Figure) -> str:
    """Write a figure as SVG for a page whose policy allows no style but the page's own.

    Text stays text and takes the page's font. Ids are the same each time and differ between the pictures.
    """
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = re.sub(r'<metadata>.*?</metadata>|<style.*?</style>| xmlns="[^"]*"', "", file.getvalue(), flags=re.DOTALL)
    text = text.replace("xlink:href=", "href=")
    referenced = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    root = ElementTree.fromstring(text)
    for element in root.iter():
        _tidy_attributes(element, referenced)
    root.attrib |= {"role": "img", "aria-label": title}
    return ElementTree.tostring(root, encoding="unicode").strip()


def _tidy_attributes(element: ElementTree.Element, referenced: set[str]) -> None:
    """Turn a style into attributes of its own, and leave out what the page decides or nothing refers to."""
    styles = (style.partition(":") for style in element.attrib.pop("style", "").split(";") if style.strip())
    element.attrib |= {name.strip(): value.strip() for name, _, value in styles}
    unused = ["font-family", "version", *(("width", "height") if element.tag == "svg" else ())]
    if element.get("id") not in referenced:
        unused.append("id")
    for name in unused:
        element.attrib.pop(name, None)
    if "d" in element.attrib:  # a thousandth of a point is nothing to see, and half of the page
        element.attrib["d"] = re.sub(r"(\.\d\d)\d+", r"\1", " ".join(element.attrib["d"].split()))
