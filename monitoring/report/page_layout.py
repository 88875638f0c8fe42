"""The monitoring page: one file, index.html, that a browser opens without a server.

It contains its plots and style, has no script and loads nothing. Field names, versions and reasons come from a log to
which any API client can write. So the template escapes all of them, and the page's Content-Security-Policy lets a
browser run and load nothing.
"""

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree  # nosec B405  # reads what matplotlib draws

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from atomic_files import write_atomically
from commands import NotThereError
from deployment.prediction_log.windows import Span, format_time
from experiment_tracking.registry.promotion import PROMOTED, ROLLED_BACK, Record
from monitoring.drift import ALPHA, KINDS, Check
from monitoring.quality import name_coverage
from monitoring.report import figures
from monitoring.report.files import name_folder
from monitoring.report.marks import ALARM, PROMOTION, ROLLBACK, Mark
from monitoring.report.record import MonitoringRun
from monitoring.watch import DRIFTED, OF, Watch, WindowReport
from wine_data.schema import RATERS, ROW, ROWS, TYPES
from wine_quality_training.bundle.grade_sets import name_percent
from wine_quality_training.report.tables import HEADINGS

TEMPLATE = Path(__file__).with_name("page.html")
PAGE = "index.html"
MOST_EVENTS, MOST_REPORTS = 100, 50
LONGEST_LABEL = 14  # characters of a version beside a line in a plot


def write_page(
    watch: Watch, runs: Sequence[MonitoringRun], records: Sequence[Record], folder: Path, now: float
) -> Path:
    """Write the page of a run with at least one window atomically, and return its path.

    `runs` and `records` are the complete history. The page links the reports: folders beside it with HTML files. `now`
    is in seconds since 1970.

    Raises:
        NotThereError: the folder is not writable; an earlier page stays intact.
    """
    page = folder / PAGE
    text = render_page(watch, runs, records, list_reports(folder), now)
    try:
        write_atomically(page, text)
    except OSError as error:
        raise NotThereError(
            f"{page} cannot be written ({error.strerror}): set WINE_MONITORING_REPORTS to a folder that can be written"
        ) from error
    return page


def render_page(
    watch: Watch, runs: Sequence[MonitoringRun], records: Sequence[Record], reports: Sequence[Path], now: float
) -> str:
    """Render the page; the same data give the same page, except for the line with its time."""
    latest = watch.windows[-1]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": format_time, "svg": _render_svg}
    return environment.get_template(TEMPLATE.name).render(
        policy=_find_policy(TEMPLATE.read_text(encoding="utf-8")),
        heading=f"Monitoring of {watch.metadata.name} version {watch.metadata.version}",
        span=f"{watch.metadata.model}, {count_things(len(watch.windows), 'window')} "
        f"from {format_time(watch.windows[0].span.since)} to {format_time(latest.span.until)}.",
        made=f"Made {format_time(now)}, {_describe_age(now - latest.span.until)} after the newest window ended.",
        alarm=watch.alarm,
        latest=latest,
        row=ROW,
        rows=ROWS,
        raters=RATERS,
        types=TYPES,
        windows=watch.windows,
        pictures=_plot_pictures(watch, make_marks(runs, records)),
        measures=HEADINGS
        | {name_coverage(level): f"in its {name_percent(level)} % set" for level in watch.metadata.grade_sets},
        refusals=sorted(latest.refusals.items(), key=lambda entry: (-entry[1], entry[0])),
        limits={"alpha": ALPHA, "drifted": DRIFTED, "of": OF},
        checks={kind: _sort_checks(latest, kind) for kind in KINDS},
        **_list_history(runs, records),
        **_group_reports(reports, runs),
    )


def list_reports(folder: Path) -> list[Path]:
    """The HTML files in the folders beside the page, newest folder first."""
    folders = {path.parent for path in folder.glob("[!.]*/*.html")}
    newest = sorted(folders, key=lambda path: (path.name[:1].isdigit(), path.name), reverse=True)  # files come last
    return [path for each in newest for path in sorted(each.glob("*.html"))]


def make_marks(runs: Sequence[MonitoringRun], records: Sequence[Record]) -> list[Mark]:
    """Mark alarms at the end of their window, promotions and rollbacks at their time."""
    marks = [Mark(run.until, "alarm", ALARM) for run in runs if run.reason]
    for record in records:
        if record.event == PROMOTED:
            marks.append(Mark(record.when.timestamp(), f"version {_shorten(record.version)}", PROMOTION))
        elif record.event == ROLLED_BACK:
            marks.append(Mark(record.when.timestamp(), f"back to {_shorten(record.version)}", ROLLBACK))
    return marks


def count_things(number: int, name: str) -> str:
    """A number and a noun, such as "2 windows"."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _plot_pictures(watch: Watch, marks: Sequence[Mark]) -> dict[str, Figure]:
    """Draw all plots, by their names in the template."""
    windows, promised = watch.windows, watch.metadata.metrics.get("leak-free.cv.accuracy")
    return {
        "drift": figures.plot_drift(windows, marks),
        "quality": figures.plot_quality(windows, marks, promised),
        "coverage": figures.plot_coverage(windows, marks, list(watch.metadata.grade_sets)),
        "confidence": figures.plot_confidence(windows, marks),
        "grades": figures.plot_grades(windows, marks),
        "traffic": figures.plot_traffic(windows, marks),
        "pace": figures.plot_pace(windows, marks),
        "latency": figures.plot_latency(windows, marks),
    }


def _sort_checks(window: WindowReport, kind: str) -> list[Check]:
    """The checks of a kind: those that drifted first, then the strongest of the others."""
    checks = [check for check in window.checks if check.kind == kind]
    return sorted(checks, key=lambda check: (not check.drifted, -check.strength))


def _list_history(runs: Sequence[MonitoringRun], records: Sequence[Record]) -> dict[str, Any]:
    """The alarms with their actions, the promotions and rollbacks, newest first; and their number."""
    alarms = [run for run in runs if run.reason or run.action]
    events = [(run.when, "alarm", run.version, run.reason, run.describe_action() or "nothing") for run in alarms]
    for record in records:
        versions = f"{record.champion or 'none'} \N{RIGHTWARDS ARROW} {record.version}"
        why = "; ".join(filter(None, (record.verdict, record.reason)))
        events.append((record.when, record.event, versions, why, f"by {record.who}"))
    events.sort(key=lambda event: event[0], reverse=True)
    hidden = f" The newest {MOST_EVENTS} of {len(events):,} events are shown." if len(events) > MOST_EVENTS else ""
    recorded = f"{count_things(len(runs), 'run')} of monitoring recorded, {count_things(len(alarms), 'alarm')}.{hidden}"
    return {"events": events[:MOST_EVENTS], "recorded": recorded}


def _group_reports(reports: Sequence[Path], runs: Sequence[MonitoringRun]) -> dict[str, Any]:
    """By folder: whether it has an alarm, and address and name of each report; the number of hidden folders."""
    alarms = {name_folder(Span(run.since, run.until)) for run in runs if run.reason}
    groups: dict[str, list[tuple[str, str]]] = {}
    for path in reports:
        folder = path.parent.name
        address = f"{quote(folder, safe='')}/{quote(path.name, safe='')}"  # unquoted, 14:05/… would be a URL scheme
        groups.setdefault(folder, []).append((address, path.stem))
    shown = [(folder, folder in alarms, links) for folder, links in list(groups.items())[:MOST_REPORTS]]
    return {"reports": shown, "older_reports": len(groups) - len(shown)}


def _describe_age(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return count_things(int(seconds // length), unit)
    return count_things(max(int(seconds), 0), "second")


def _find_policy(template: str) -> str:
    """The Content-Security-Policy of the page: it allows its own style and its icon, nothing else."""
    style = re.search(r"<style>(.*?)</style>", template, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def _render_svg(figure: Figure, name: str, title: str) -> Markup:
    """Render a figure as SVG for a page whose policy allows only its own style.

    Text stays text in the page's font. Ids are reproducible, and differ between plots.
    """
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = re.sub(r'<metadata>.*?</metadata>|<style.*?</style>| xmlns="[^"]*"', "", file.getvalue(), flags=re.DOTALL)
    text = text.replace("xlink:href=", "href=")
    referenced = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    root = ElementTree.fromstring(text)  # nosec B314  # what matplotlib has just drawn
    for element in root.iter():
        _tidy_attributes(element, referenced)
    root.attrib |= {"role": "img", "aria-label": title}
    drawing = ElementTree.tostring(root, encoding="unicode").strip()
    return Markup(drawing)  # nosec B704  # ElementTree has escaped its texts


def _tidy_attributes(element: ElementTree.Element, referenced: set[str]) -> None:
    """Turn a style into separate attributes; drop those that the page sets, and ids without references."""
    styles = (style.partition(":") for style in element.attrib.pop("style", "").split(";") if style.strip())
    element.attrib |= {name.strip(): value.strip() for name, _, value in styles}
    unused = ["font-family", "version", *(("width", "height") if element.tag == "svg" else ())]
    if element.get("id") not in referenced:
        unused.append("id")
    for name in unused:
        element.attrib.pop(name, None)
    if "d" in element.attrib:  # a third decimal is invisible, and would double the page
        element.attrib["d"] = re.sub(r"(\.\d\d)\d+", r"\1", " ".join(element.attrib["d"].split()))


def _shorten(text: str) -> str:
    """Shorten a text to fit a plot, and drop characters that SVG does not allow."""
    printable = "".join(character for character in text if character.isprintable())
    return printable if len(printable) <= LONGEST_LABEL else f"{printable[: LONGEST_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
