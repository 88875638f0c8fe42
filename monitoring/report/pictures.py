"""The pictures of the page, what is marked in them, and how they become SVG; page.html explains each of them."""

import io
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from experiment_tracking.registry.promotion import PROMOTED, ROLLED_BACK, Record
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


def make_marks(runs: Sequence[MonitoringRun], records: Sequence[Record]) -> list[Mark]:
    """Mark alarms at the end of their window, promotions and rollbacks when they happened."""
    marks = [Mark(run.until, "alarm", ALARM) for run in runs if run.reason]
    for record in records:
        if record.event == PROMOTED:
            marks.append(Mark(record.when.timestamp(), f"version {_shorten(record.version)}", PROMOTION))
        elif record.event == ROLLED_BACK:
            marks.append(Mark(record.when.timestamp(), f"back to {_shorten(record.version)}", ROLLBACK))
    return marks


def plot_pictures(watch: Watch, marks: Sequence[Mark]) -> dict[str, Figure]:
    """Plot all pictures of the page, by their names in its template."""
    windows, promised = watch.windows, watch.metadata.metrics.get("leak-free.cv.accuracy")
    return {
        "drift": plot_drift(windows, marks),
        "quality": plot_quality(windows, marks, promised),
        "confidence": plot_confidence(windows, marks),
        "grades": plot_grades(windows, marks),
        "traffic": plot_traffic(windows, marks),
        "pace": plot_pace(windows, marks),
        "latency": plot_latency(windows, marks),
    }


def render_svg(figure: Figure, name: str, title: str) -> Markup:
    """Render a figure as SVG, which needs no escaping, for a page whose policy allows no style but its own.

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
    return Markup(ElementTree.tostring(root, encoding="unicode").strip())


def _shorten(text: str) -> str:
    """Keep of a text what a picture has room for, and an SVG may hold."""
    printable = "".join(character for character in text if character.isprintable())
    return printable if len(printable) <= LONGEST_LABEL else f"{printable[: LONGEST_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"


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
