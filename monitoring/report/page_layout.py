"""The page that monitoring shows to people: one file, index.html, that a browser opens without a server.

Its pictures, its style and its figures are inside, it has no script, and it asks for nothing. Field names, versions
and reasons come from a log that anybody may write to by asking the API, so all of them are escaped, and the page's
own policy lets a browser run and load nothing.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

from atomic_files import write_atomically
from commands import NotThereError
from deployment.prediction_log.windows import Span
from experiment_tracking.registry.promotion import PROMOTED, ROLLED_BACK, Record
from monitoring.alarm import DRIFTED, OF
from monitoring.drift import ALPHA, INPUTS, PREDICTIONS, QUALITY, REFUSALS, Check
from monitoring.report.figures import (
    ALARM,
    PROMOTION,
    ROLLBACK,
    Mark,
    plot_confidence,
    plot_drift,
    plot_grades,
    plot_latency,
    plot_pace,
    plot_quality,
    plot_traffic,
)
from monitoring.report.files import name_folder
from monitoring.report.record import MonitoringRun
from monitoring.watch import Watch, WindowReport
from wine_quality_training.report import HEADINGS

TEMPLATE = Path(__file__).with_name("page.html")
PAGE = "index.html"
MOST_EVENTS, MOST_REPORTS = 100, 50
CHECK_HEADINGS = ("check", "measured", "p", "strength", "drifted")
RULE = (
    "Strength is the effect as a multiple of what matters. A check has drifted where that is 1 or more and p, "
    f"corrected for the number of tests in the window, is under {ALPHA:g}."
)
LONGEST_LABEL = 14  # characters of a version beside a line in a picture


@dataclass(frozen=True)
class Picture:
    """A figure with its title, the sentence that says how to read it, and whether it takes the page's whole width."""

    name: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False


def write_page(
    watch: Watch, looks: Sequence[MonitoringRun], records: Sequence[Record], folder: Path, now: float
) -> Path:
    """Write the page of a look whose log held at least one window, whole or not at all, and return its path.

    Args:
        watch: what was seen.
        looks: every look that was recorded.
        records: every promotion, rollback and refusal.
        folder: where the page goes; folders in it that hold HTML files are reports, and are linked.
        now: when the page is made, seconds since 1970.

    Raises:
        NotThereError: the folder cannot be written to; a page that was there before is intact.
    """
    page = folder / PAGE
    text = render_page(watch, looks, records, list_reports(folder), now)
    try:
        write_atomically(page, text)
    except OSError as error:
        raise NotThereError(f"{page} cannot be written ({error.strerror}): see WINE_MONITORING_REPORTS") from error
    return page


def render_page(
    watch: Watch, looks: Sequence[MonitoringRun], records: Sequence[Record], reports: Sequence[Path], now: float
) -> str:
    """Lay out the page; the same data give the same page but for the line that says when it was made."""
    latest = watch.windows[-1]
    heading = f"Monitoring of {watch.metadata.name} version {watch.metadata.version}"
    parts = {
        "title": escape(("Alarm: " if watch.alarm.raised else "") + heading),
        "heading": escape(heading),
        "span": escape(_tell_span(watch)),
        "made": escape(f"Made {_tell_time(now)}, {_tell_age(now - latest.span.until)} after the newest window ended."),
        "verdict": _render_verdict(watch),
        "counts": _render_counts(watch.windows),
        "pictures": "\n".join(map(_render_picture, plot_pictures(watch, make_marks(looks, records)))),
        "rule": escape(RULE),
        "inputs": _render_checks(latest, (INPUTS,)),
        "others": _render_checks(latest, (PREDICTIONS, QUALITY, REFUSALS)),
        "facts": _render_metadata(latest),
        "refusals": _render_refusals(latest),
        "history": _render_history(looks, records),
        "reports": _render_reports(reports, looks),
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    parts["policy"] = _find_policy(page)
    for place, text in parts.items():  # an escaped text holds no "<", so none of them can be such a place itself
        page = page.replace(f"<!--{place}-->", text)
    return page


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
    return [
        Picture(
            "drift",
            "Drift, by what is watched",
            "The darker a cell, the further its window lies from what the model learned from, as a multiple of what "
            "matters; a dot says that it is certain too, and a check with dots in the newest window and in "
            f"{DRIFTED} of the last {OF} raises an alarm.",
            plot_drift(windows, marks),
            wide=True,
        ),
        Picture(
            "quality",
            "Accuracy",
            "Dots are measured on the wines that tasters have graded since, with the 95 % interval of so few wines; "
            "the dashed line is only what the model's own confidence lets expect, and cannot see a change of taste.",
            plot_quality(windows, marks, promised),
        ),
        Picture(
            "confidence",
            "Low confidence",
            "The share of answers that the model was less sure of than of nine tenths of the wines it learned from: "
            "well over the dotted line it meets wines that it does not know.",
            plot_confidence(windows, marks),
        ),
        Picture(
            "grades",
            "Predicted grades",
            "Each column is split by the grades that were answered, the lowest below and the highest on top.",
            plot_grades(windows, marks),
        ),
        Picture(
            "traffic",
            "Traffic",
            "The wines of each window, those that were refused as no possible wine in red on top.",
            plot_traffic(windows, marks),
        ),
        Picture(
            "pace",
            "Pace",
            "How many answers there were a minute; a gap is a window without any.",
            plot_pace(windows, marks),
        ),
        Picture(
            "latency",
            "Latency",
            "Half of a window's answers took no longer than p50, 95 % no longer than p95 and 99 % no longer than p99.",
            plot_latency(windows, marks),
        ),
    ]


def list_reports(folder: Path) -> list[Path]:
    """The HTML files in the folders beside the page, the newest folder first."""
    folders = {path.parent for path in folder.glob("[!.]*/*.html")}
    newest = sorted(folders, key=lambda path: (path.name[:1].isdigit(), path.name), reverse=True)  # files come last
    return [path for each in newest for path in sorted(each.glob("*.html"))]


def _tell_span(watch: Watch) -> str:
    first, last = watch.windows[0].span.since, watch.windows[-1].span.until
    windows = tell_count(len(watch.windows), "window")
    return f"{watch.metadata.model}, {windows} from {_tell_time(first)} to {_tell_time(last)}."


def _render_verdict(watch: Watch) -> str:
    if watch.alarm.raised:
        findings = "\n".join(f"<li>{escape(finding.sentence())}</li>" for finding in watch.alarm.findings)
        title = f"Alarm since {_tell_time(watch.alarm.since)}"
        return f'<div class="verdict alarm" role="status"><strong>{title}</strong>\n<ul>\n{findings}\n</ul></div>'
    names = [check.name for check in watch.windows[-1].drifted]
    told = f"<p>Drifted in the latest window, which alone is no alarm: {escape(', '.join(names))}.</p>" if names else ""
    return f'<div class="verdict" role="status"><strong>No alarm</strong>{told}</div>'


def _render_counts(windows: Sequence[WindowReport]) -> str:
    asked, answered, graded, corrupt = (
        sum(getattr(window, name) for window in windows) for name in ("asked", "answered", "graded", "corrupt")
    )
    counts = {
        "windows": len(windows),
        "wines asked for": asked,
        "answered": answered,
        "refused": asked - answered,
        "graded by tasters": graded,
        "corrupt rows": corrupt,
    }
    return "\n".join(f"<div><dt>{name}</dt><dd>{count:,}</dd></div>" for name, count in counts.items())


def _render_picture(picture: Picture) -> str:
    svg = _render_svg(picture.name, picture.title, picture.figure)
    if picture.wide:  # on a phone it keeps a size that can be read, and moves sideways
        svg = f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(picture.title)}">{svg}</div>'
    return (
        f'<figure class="card{" wide" if picture.wide else ""}" id="{picture.name}">\n'
        f"<h3>{escape(picture.title)}</h3>\n{svg}\n<figcaption>{escape(picture.caption)}</figcaption>\n</figure>"
    )


def _render_svg(name: str, title: str, figure: Figure) -> str:
    """A figure as SVG to stand in a page whose policy allows no style but the page's own.

    Text stays text and takes the page's font. Ids are the same each time and differ between the pictures.
    """
    file = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue().decode()
    root = ElementTree.fromstring(text)
    _drop_elements(root, {"metadata", "style"})
    referred = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    for element in root.iter():
        element.tag = _drop_namespace(element.tag)
        _tidy_attributes(element, referred)
    root.attrib |= {"role": "img", "aria-label": title}
    return ElementTree.tostring(root, encoding="unicode").strip()


def _drop_elements(root: ElementTree.Element, names: set[str]) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if _drop_namespace(child.tag) in names]:
            parent.remove(child)


def _tidy_attributes(element: ElementTree.Element, referred: set[str]) -> None:
    """Turn a style into attributes of their own, and leave out what the page decides or nothing refers to."""
    given = {_drop_namespace(name): value for name, value in element.attrib.items()}
    declared = (each.partition(":") for each in given.pop("style", "").split(";") if each.strip())
    given |= {name.strip(): value.strip() for name, _, value in declared}
    unwanted = {"font-family", "version"} | ({"width", "height"} if element.tag == "svg" else set())
    if given.get("id") not in referred:
        unwanted.add("id")
    if "d" in given:  # a thousandth of a point is nothing to see, and half of the page
        given["d"] = re.sub(r"(\.\d\d)\d+", r"\1", " ".join(given["d"].split()))
    element.attrib.clear()
    element.attrib.update({name: value for name, value in given.items() if name not in unwanted})


def _drop_namespace(name: str) -> str:
    return name.rpartition("}")[2]


def _render_checks(window: WindowReport, kinds: Sequence[str]) -> str:
    """A table for each kind of checks, what drifted first and the strongest of the others after it."""
    parts = []
    for kind in kinds:
        checks = [check for check in window.checks if check.kind == kind]
        checks.sort(key=lambda check: (not check.drifted, -check.strength))
        table = _render_table(CHECK_HEADINGS, map(_render_check, checks), numbers=(2, 3))
        parts.append(
            f"<h3>{escape(kind.capitalize())}</h3>\n"
            + (table if checks else '<p class="none">Not evaluated: too few wines.</p>')
        )
    return "\n".join(parts)


def _render_check(check: Check) -> str:
    figures = ", ".join(f"{measure}\N{NO-BREAK SPACE}{value:.3g}" for measure, value in check.figures.items())
    p = "< 0.001" if check.p < 0.001 else f"{check.p:.3f}"
    return (
        f'<tr{" class=drifted" if check.drifted else ""}><th scope="row">{escape(_name(check.name))}</th>'
        f'<td class="figures">{escape(figures)}</td><td class="number">{escape(p)}</td>'
        f'<td class="number">{check.strength:.1f}</td><td>{"yes" if check.drifted else "no"}</td></tr>'
    )


def _render_metadata(window: WindowReport) -> str:
    metadata = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _describe_metadata(window)
    )
    return f'<dl class="facts">\n{metadata}\n</dl>'


def _describe_metadata(window: WindowReport) -> Iterator[tuple[str, str]]:
    yield "from", _tell_time(window.span.since)
    yield "to", _tell_time(window.span.until)
    yield "wines", f"{window.asked:,} asked for, {window.answered:,} answered, {window.graded:,} graded since"
    yield "corrupt rows", f"{window.corrupt:,}"
    yield "answered by", ", ".join(f"version {name}: {count:,}" for name, count in window.versions.items()) or "nobody"
    yield "red wines", _tell_share(window.red) if window.answered else "no answers"
    yield "compared with", window.part
    if window.quality:
        yield "graded wines", f"{window.quality.graded:,}, of the version that serves"
        for name, value in window.quality.metrics.items():
            low, high = window.quality.intervals[name]
            yield HEADINGS[name], f"{value:.3f} (95 %: {low:.3f} to {high:.3f})"
    else:
        yield "accuracy", "not measured: too few graded wines"
    yield "accuracy, estimate", "none" if window.estimate is None else f"{window.estimate:.3f}, from its confidence"
    yield (
        "low confidence",
        "unknown" if window.low_confidence is None else f"{_tell_share(window.low_confidence)} of the answers",
    )
    if window.health:
        health = window.health
        yield "latency", f"p50 {health.p50_ms:,.1f} ms, p95 {health.p95_ms:,.1f} ms, p99 {health.p99_ms:,.1f} ms"
        yield (
            "traffic",
            f"{health.per_minute:,.1f} answers a minute, {_tell_share(health.refused)} of the requests refused",
        )


def _render_refusals(window: WindowReport) -> str:
    if not window.refusals:
        return '<p class="none">None.</p>'
    ordered = sorted(window.refusals.items(), key=lambda entry: (-entry[1], entry[0]))
    rows = [
        f'<tr><th scope="row">{escape(_name(field))}</th><td class="number">{count:,}</td>'
        f"<td>{escape(window.reasons.get(field, ''))}</td></tr>"
        for field, count in ordered
    ]
    return _render_table(("field", "requests", "why"), rows, numbers=(1,))


def _render_history(looks: Sequence[MonitoringRun], records: Sequence[Record]) -> str:
    """The alarms, what was done about them and the moves of the champion, the newest first."""
    alarms = [look for look in looks if look.reason or look.action]
    events = [
        *((look.when, "alarm", look.version, look.reason, look.action or "nothing") for look in alarms),
        *((record.when, record.event, _tell_move(record), _tell_why(record), f"by {record.who}") for record in records),
    ]
    events.sort(key=lambda event: event[0], reverse=True)
    rows = [
        f'<tr><td class="line">{when:%Y-%m-%d %H:%M:%S}</td><td class="line">{escape(what)}</td>'
        + "".join(f"<td>{escape(_name(told))}</td>" for told in rest)
        + "</tr>"
        for when, what, *rest in events[:MOST_EVENTS]
    ]
    hidden = f" The newest {MOST_EVENTS} of {len(events):,} events are shown." if len(events) > MOST_EVENTS else ""
    told = f'<p class="none">{tell_count(len(looks), "look")} recorded, {tell_count(len(alarms), "alarm")}.{hidden}</p>'
    table = _render_table(("when, UTC", "what", "version", "why", "done"), rows, style="history") if rows else ""
    return told + table


def _render_reports(reports: Sequence[Path], looks: Sequence[MonitoringRun]) -> str:
    alarms = {name_folder(Span(look.since, look.until)) for look in looks if look.reason}
    folders = list(dict.fromkeys(path.parent.name for path in reports))
    lines = [
        f"<li><span>{escape(folder)}{' (alarm)' if folder in alarms else ''}</span>"
        + "".join(_render_link(path) for path in reports if path.parent.name == folder)
        + "</li>"
        for folder in folders[:MOST_REPORTS]
    ]
    if not lines:
        return '<p class="none">None yet: python -m monitoring.reports draws the newest window.</p>'
    hidden = f'<p class="none">and {len(folders) - MOST_REPORTS:,} older ones</p>' if folders[MOST_REPORTS:] else ""
    return f'<ul class="reports">\n{chr(10).join(lines)}\n</ul>{hidden}'


def _render_link(path: Path) -> str:
    address = f"{quote(path.parent.name, safe='')}/{quote(path.name, safe='')}"  # 14:05/… would else be a protocol
    return f' <a href="{escape(address)}">{escape(path.stem)}</a>'


def _render_table(headings: Sequence[str], rows: Iterable[str], numbers: Sequence[int] = (), style: str = "") -> str:
    """A table that moves sideways where it is too wide; `numbers` are the columns to align to the right."""
    head = "".join(
        f'<th scope="col"{" class=number" if column in numbers else ""}>{heading}</th>'
        for column, heading in enumerate(headings)
    )
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table{f" class={style}" if style else ""}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _tell_move(record: Record) -> str:
    return f"{record.champion or 'none'} \N{RIGHTWARDS ARROW} {record.version}"


def _tell_why(record: Record) -> str:
    return "; ".join(filter(None, (record.verdict, record.reason)))


def _tell_time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _tell_age(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return tell_count(int(seconds // length), unit)
    return tell_count(max(int(seconds), 0), "second")


def _tell_share(share: float) -> str:
    return f"{100 * share:.1f} %"


def tell_count(number: int, name: str) -> str:
    """So many of something, as in "2 windows"."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _name(name: str) -> str:
    return name.replace("_", " ")


def _shorten(text: str) -> str:
    """Keep of a text what a picture has room for, and an SVG may hold."""
    printable = "".join(character for character in text if character.isprintable())
    return printable if len(printable) <= LONGEST_LABEL else f"{printable[: LONGEST_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"


def _find_policy(template: str) -> str:
    """The Content-Security-Policy of the page: its own style and the icon in it, nothing else."""
    style = re.search(r"<style>(.*?)</style>", template, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
