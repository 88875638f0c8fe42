"""Watch the prediction log: each of the newest windows checked against what the champion learned from, and the alarm.

Nothing is remembered from one run to the next: late labels count in old windows, and a new champion is compared with
its own reference from its first answer on.

There is an alarm where a check has drifted in the latest window and in K of the last N: a single window may drift by
chance, or because of one bad hour. Windows in which a check could not be evaluated (too few answers, no labels yet) do
not count, and of those evaluated only the last RECENT windows, or an alarm would last for ever once tasters stop.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from commands import BadInputError
from deployment.prediction_log.findings import ALARM, COVERAGE, DRIFTED_CHECKS, LAST_RUN, Findings
from deployment.prediction_log.windows import Span, Window, find_windows, read_window, select_model
from monitoring.drift import Check, check_window, count_refusals, describe_reasons, find_nearest
from monitoring.quality import (
    Health,
    Quality,
    count_low_confidence,
    estimate_accuracy,
    measure_health,
    measure_quality,
    name_coverage,
)
from settings import Settings
from wine_data.schema import FLAGS
from wine_quality_training.bundle.bundle import METADATA_FILE, find_current
from wine_quality_training.bundle.metadata import ModelMetadata, read_metadata

MOST_WINDOWS = 60  # that people are shown
DRIFTED, OF = 2, 3  # K and N
RECENT = 12  # windows that labels may be late


@dataclass(frozen=True)
class WindowReport:
    """The figures of one window.

    Attributes:
        asked: wines asked for; `answered` of them got a grade, `graded` of these also one from a taster.
        corrupt: rows that could not be read.
        versions: answers by the version that gave them; `grades` by predicted grade.
        red: share of red wines among the answers, NaN for none.
        refusals: refused wines by field; `reasons` explains why, in words.
        part: what it was compared with.
        checks: those that could be evaluated.
        quality: of the serving version's answers, measured; None with too few grades.
        estimate: the accuracy that their confidence lets expect.
        low_confidence: share of answers that are less sure than nine tenths of the reference.
    """

    span: Span
    asked: int
    answered: int
    graded: int
    corrupt: int
    versions: dict[str, int]
    grades: dict[str, int]
    red: float
    refusals: dict[str, int]
    reasons: dict[str, str]
    part: str
    checks: tuple[Check, ...]
    quality: Quality | None
    estimate: float | None
    low_confidence: float | None
    health: Health | None

    @property
    def drifted(self) -> tuple[Check, ...]:
        """The checks that have drifted."""
        return tuple(check for check in self.checks if check.drifted)


@dataclass(frozen=True)
class Finding:
    """A check that calls for an alarm: its latest figures, and the first of the windows that count."""

    check: Check
    windows: int
    since: float

    def sentence(self) -> str:
        """What drifted, as text."""
        return f"{self.check.kind}, {self.check.sentence()}, in {self.windows} of the last {OF} windows"


@dataclass(frozen=True)
class Alarm:
    """The findings, the strongest first; there is no alarm without one."""

    findings: tuple[Finding, ...]

    @property
    def raised(self) -> bool:
        """Whether there is an alarm."""
        return bool(self.findings)

    @property
    def since(self) -> float:
        """The start of the first window that counts."""
        return min(finding.since for finding in self.findings)

    def reason(self) -> str:
        """What drifted in a few words, for the run that the alarm starts."""
        names = [finding.check.name for finding in self.findings]
        return f"drift of {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@dataclass(frozen=True)
class Watch:
    """One monitoring run: the champion's metadata, its windows, oldest first, and whether there is an alarm."""

    metadata: ModelMetadata
    windows: tuple[WindowReport, ...]
    alarm: Alarm


def watch_log(
    settings: Settings,
    most: int = RECENT,
    now: float | None = None,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Watch:
    """Check the newest windows of the log, `most` at most; settings say where it lies and how it is cut.

    `on_window` is called with the number of windows done, and of all.

    Raises:
        NotThereError: there is no model, or no log yet.
        BadInputError: the model has no profile, or the log is of another version.
    """
    metadata = read_reference(settings.serving_models)
    now = time.time() if now is None else now
    spans = find_windows(settings.log_url, settings.window_rows, settings.window_hours, now, most)
    windows = []
    for number, span in enumerate(spans, 1):
        windows.append(report_window(read_window(settings.log_url, span), metadata))
        on_window(number, len(spans))
    return Watch(metadata, tuple(windows), raise_alarm([(window.span, window.checks) for window in windows]))


def raise_alarm(windows: Sequence[tuple[Span, Sequence[Check]]]) -> Alarm:
    """Decide from windows, oldest first, which checks call for an alarm."""
    evaluated: dict[tuple[str, str], list[tuple[Span, Check]]] = {}
    for span, checks in windows[-RECENT:]:
        for check in checks:
            evaluated.setdefault((check.kind, check.name), []).append((span, check))
    findings = []
    for history in evaluated.values():
        drifted = [(span, check) for span, check in history[-OF:] if check.drifted]
        latest = history[-1][1]
        if latest.drifted and len(drifted) >= DRIFTED:
            findings.append(Finding(latest, len(drifted), since=drifted[0][0].since))
    return Alarm(tuple(sorted(findings, key=lambda finding: -finding.check.strength)))


def list_findings(watch: Watch, now: float) -> Findings:
    """What a run at that time found, for /metrics: the alarm, and the coverage of the latest window with labels."""
    found = {(ALARM, ""): float(watch.alarm.raised), (LAST_RUN, ""): now}
    if watch.windows:
        found[DRIFTED_CHECKS, ""] = float(len(watch.windows[-1].drifted))
    measured = [window.quality.metrics for window in watch.windows if window.quality]
    for level in watch.metadata.grade_sets if measured else ():
        if (share := measured[-1].get(name_coverage(level))) is not None:
            found[COVERAGE, level] = share
    return found


def read_reference(models: Path) -> ModelMetadata:
    """The metadata of the bundle that serves, with the profiles that live traffic is compared with."""
    folder = find_current(models)
    metadata = read_metadata(folder / METADATA_FILE)
    if not metadata.profiles:
        raise BadInputError(
            f"{folder} was written before bundles had a profile to compare with: run make pipeline, or promote "
            "a new version"
        )
    return metadata


def report_window(window: Window, metadata: ModelMetadata) -> WindowReport:
    """Check and measure one window."""
    part = find_nearest(window, metadata.profiles)
    checks = check_window(window, part, metadata)
    answers = window.answers
    ours = select_model(answers, metadata.version, metadata.run_id)
    earlier = (answers["version"] == metadata.version) & (answers["run_id"] != metadata.run_id)
    return WindowReport(
        span=window.span,
        asked=window.asked,
        answered=len(answers),
        graded=len(window.labelled),
        corrupt=window.corrupt,
        versions=_count(answers["version"].mask(earlier, f"{metadata.version} of another registry")),
        grades=_count(answers["prediction"]),
        red=float(answers[FLAGS[0]].mean()) if FLAGS else math.nan,
        refusals=count_refusals(window),
        reasons=describe_reasons(window),
        part=part.part,
        checks=checks,
        quality=measure_quality(ours, metadata.grade_sets),
        estimate=estimate_accuracy(ours, part.predictions) if part.predictions else None,
        low_confidence=count_low_confidence(ours, part.predictions) if part.predictions else None,
        health=measure_health(window),
    )


def _count(values: "pd.Series[Any]") -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().sort_index().items()}
