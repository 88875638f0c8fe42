"""The page that monitoring shows to people: one file, index.html, that a browser opens without a server.

Its pictures, its style and its figures are inside, it has no script, and it asks for nothing. Field names, versions
and reasons come from a log that anybody may write to by asking the API, so the template escapes all of them, and the
page's own policy lets a browser run and load nothing.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from atomic_files import write_atomically
from commands import NotThereError
from deployment.prediction_log.windows import Span
from experiment_tracking.registry.promotion import Record
from monitoring.drift import ALPHA, INPUTS, PREDICTIONS, QUALITY, REFUSALS, Check
from monitoring.report.files import name_folder
from monitoring.report.pictures import make_marks, plot_pictures
from monitoring.report.record import MonitoringRun
from monitoring.watch import Watch, WindowReport
from wine_quality_training.report import HEADINGS

TEMPLATE = Path(__file__).with_name("page.html")
PAGE = "index.html"
MOST_EVENTS, MOST_REPORTS = 100, 50
OTHERS = (PREDICTIONS, QUALITY, REFUSALS)
RULE = (
    "Strength is the effect as a multiple of what matters. A check has drifted where that is 1 or more and p, "
    f"corrected for the number of tests in the window, is under {ALPHA:g}."
)


def write_page(
    watch: Watch, runs: Sequence[MonitoringRun], records: Sequence[Record], folder: Path, now: float
) -> Path:
    """Write the page of a run whose log held at least one window, whole or not at all, and return its path.

    Args:
        watch: what was seen.
        runs: every recorded run of monitoring.
        records: every promotion, rollback and refusal.
        folder: where the page goes; folders in it that hold HTML files are reports, and are linked.
        now: when the page is made, seconds since 1970.

    Raises:
        NotThereError: the folder cannot be written to; a page that was there before is intact.
    """
    page = folder / PAGE
    text = render_page(watch, runs, records, list_reports(folder), now)
    try:
        write_atomically(page, text)
    except OSError as error:
        raise NotThereError(f"{page} cannot be written ({error.strerror}): see WINE_MONITORING_REPORTS") from error
    return page


def render_page(
    watch: Watch, runs: Sequence[MonitoringRun], records: Sequence[Record], reports: Sequence[Path], now: float
) -> str:
    """Render the page; the same data give the same page but for the line that says when it was made."""
    latest = watch.windows[-1]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "moment": _describe_time,
        "spaced": _put_spaces,
        "measured": _describe_figures,
        "p_value": _describe_p,
    }
    return environment.get_template(TEMPLATE.name).render(
        policy=_find_policy(TEMPLATE.read_text(encoding="utf-8")),
        heading=f"Monitoring of {watch.metadata.name} version {watch.metadata.version}",
        span=_describe_span(watch),
        made=f"Made {_describe_time(now)}, {_describe_age(now - latest.span.until)} after the newest window ended.",
        alarm=watch.alarm,
        latest=latest,
        counts=_count_wines(watch.windows),
        pictures=plot_pictures(watch, make_marks(runs, records)),
        content=list(_describe_window(latest)),
        refusals=sorted(latest.refusals.items(), key=lambda entry: (-entry[1], entry[0])),
        rule=RULE,
        checks={kind: _sort_checks(latest, kind) for kind in (INPUTS, *OTHERS)},
        inputs=(INPUTS,),
        others=OTHERS,
        **_list_history(runs, records),
        **_group_reports(reports, runs),
    )


def list_reports(folder: Path) -> list[Path]:
    """The HTML files in the folders beside the page, the newest folder first."""
    folders = {path.parent for path in folder.glob("[!.]*/*.html")}
    newest = sorted(folders, key=lambda path: (path.name[:1].isdigit(), path.name), reverse=True)  # files come last
    return [path for each in newest for path in sorted(each.glob("*.html"))]


def count_things(number: int, name: str) -> str:
    """So many of something, as in "2 windows"."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _describe_span(watch: Watch) -> str:
    first, last = watch.windows[0].span.since, watch.windows[-1].span.until
    windows = count_things(len(watch.windows), "window")
    return f"{watch.metadata.model}, {windows} from {_describe_time(first)} to {_describe_time(last)}."


def _count_wines(windows: Sequence[WindowReport]) -> dict[str, int]:
    asked, answered, graded, corrupt = (
        sum(getattr(window, name) for window in windows) for name in ("asked", "answered", "graded", "corrupt")
    )
    return {
        "windows": len(windows),
        "wines asked for": asked,
        "answered": answered,
        "refused": asked - answered,
        "graded by tasters": graded,
        "corrupt rows": corrupt,
    }


def _sort_checks(window: WindowReport, kind: str) -> list[Check]:
    """The checks of a kind: those that drifted first, then the strongest of the others."""
    checks = [check for check in window.checks if check.kind == kind]
    return sorted(checks, key=lambda check: (not check.drifted, -check.strength))


def _describe_window(window: WindowReport) -> Iterator[tuple[str, str]]:
    yield "from", _describe_time(window.span.since)
    yield "to", _describe_time(window.span.until)
    yield "wines", f"{window.asked:,} asked for, {window.answered:,} answered, {window.graded:,} graded since"
    yield "corrupt rows", f"{window.corrupt:,}"
    yield "answered by", ", ".join(f"version {name}: {count:,}" for name, count in window.versions.items()) or "nobody"
    yield "red wines", f"{100 * window.red:.1f} %" if window.answered else "no answers"
    yield "compared with", window.part
    if window.quality:
        yield "graded wines", f"{window.quality.graded:,}, of the version that serves"
        for name, value in window.quality.metrics.items():
            low, high = window.quality.intervals[name]
            yield HEADINGS[name], f"{value:.3f} (95 %: {low:.3f} to {high:.3f})"
    else:
        yield "accuracy", "not measured: too few graded wines"
    yield "accuracy, estimate", "none" if window.estimate is None else f"{window.estimate:.3f}, from its confidence"
    low_confidence = window.low_confidence
    yield "low confidence", "unknown" if low_confidence is None else f"{100 * low_confidence:.1f} % of the answers"
    if window.health:
        health = window.health
        yield "latency", f"p50 {health.p50_ms:,.1f} ms, p95 {health.p95_ms:,.1f} ms, p99 {health.p99_ms:,.1f} ms"
        refused = f"{100 * health.refused:.1f} % of the requests refused"
        yield "traffic", f"{health.per_minute:,.1f} answers a minute, {refused}"


def _list_history(runs: Sequence[MonitoringRun], records: Sequence[Record]) -> dict[str, Any]:
    """The alarms, what was done about them and the moves of the champion, the newest first; and how many there are."""
    alarms = [run for run in runs if run.reason or run.action]
    events = [
        *((run.when, "alarm", run.version, run.reason, run.action or "nothing") for run in alarms),
        *(
            (
                record.when,
                record.event,
                f"{record.champion or 'none'} \N{RIGHTWARDS ARROW} {record.version}",
                "; ".join(filter(None, (record.verdict, record.reason))),
                f"by {record.who}",
            )
            for record in records
        ),
    ]
    events.sort(key=lambda event: event[0], reverse=True)
    hidden = f" The newest {MOST_EVENTS} of {len(events):,} events are shown." if len(events) > MOST_EVENTS else ""
    recorded = f"{count_things(len(runs), 'run')} of monitoring recorded, {count_things(len(alarms), 'alarm')}.{hidden}"
    return {"events": events[:MOST_EVENTS], "recorded": recorded}


def _group_reports(reports: Sequence[Path], runs: Sequence[MonitoringRun]) -> dict[str, Any]:
    """By folder: whether it has an alarm, and address and name of each report; how many folders are left out."""
    alarms = {name_folder(Span(run.since, run.until)) for run in runs if run.reason}
    folders = list(dict.fromkeys(path.parent.name for path in reports))
    groups = [
        (folder, folder in alarms, [(_quote(path), path.stem) for path in reports if path.parent.name == folder])
        for folder in folders[:MOST_REPORTS]
    ]
    return {"reports": groups, "older_reports": max(len(folders) - MOST_REPORTS, 0)}


def _quote(path: Path) -> str:
    return f"{quote(path.parent.name, safe='')}/{quote(path.name, safe='')}"  # 14:05/… would else be a protocol


def _describe_figures(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{measure}\N{NO-BREAK SPACE}{value:.3g}" for measure, value in figures.items())


def _describe_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _describe_time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _describe_age(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return count_things(int(seconds // length), unit)
    return count_things(max(int(seconds), 0), "second")


def _put_spaces(name: str) -> str:
    return name.replace("_", " ")


def _find_policy(template: str) -> str:
    """The Content-Security-Policy of the page: its own style and the icon in it, nothing else."""
    style = re.search(r"<style>(.*?)</style>", template, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
