"""Monitor the prediction log: check its newest windows against the champion's reference, and decide on an alarm.

A run keeps no state for the next one: late labels count in old windows, and a new champion is compared with its own
reference from its first prediction on.

An alarm needs a check that has drifted in the latest window and in K of the last N: a single window may drift by
chance, or because of one bad hour. Windows in which a check could not be evaluated (too few predictions, no labels yet)
do not count. Only the last RECENT windows count, or an alarm would never end after tasters stop.
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

MOST_WINDOWS = 60  # shown on the page
DRIFTED, OF = 2, 3  # K and N
RECENT = 12  # windows; labels may be this late


@dataclass(frozen=True)
class WindowReport:
    """The figures of one window.

    Attributes:
        asked: requested wines; `answered` of them have a prediction, `graded` of these also a taster's grade.
        corrupt: rows that could not be read.
        versions: number of predictions by model version; `grades` by predicted grade.
        red: share of red wines among the predictions, NaN without predictions.
        refusals: refused wines by field; `reasons` has the reasons as text.
        part: the part of the reference that it was compared with.
        checks: those that could be evaluated.
        quality: measured quality of the serving version's predictions; None with too few grades.
        estimate: their accuracy, estimated from their confidence.
        low_confidence: share of predictions with a lower confidence than 90 % of the reference.
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
    """A check that raises an alarm: its latest figures, its drifted windows, and the start of the first of them."""

    check: Check
    windows: int
    since: float

    def sentence(self) -> str:
        """The finding as text."""
        return f"{self.check.kind}, {self.check.sentence()}, in {self.windows} of the last {OF} windows"


@dataclass(frozen=True)
class Alarm:
    """The findings, the strongest first; without findings there is no alarm."""

    findings: tuple[Finding, ...]

    @property
    def raised(self) -> bool:
        """Whether there is an alarm."""
        return bool(self.findings)

    @property
    def since(self) -> float:
        """The start of the first drifted window that counts."""
        return min(finding.since for finding in self.findings)

    def reason(self) -> str:
        """A short list of what drifted, for the run that the alarm starts."""
        names = [finding.check.name for finding in self.findings]
        return f"drift of {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@dataclass(frozen=True)
class Watch:
    """One monitoring run: the champion's metadata, the windows, oldest first, and the alarm."""

    metadata: ModelMetadata
    windows: tuple[WindowReport, ...]
    alarm: Alarm


def watch_log(
    settings: Settings,
    most: int = RECENT,
    now: float | None = None,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Watch:
    """Check the newest windows of the log, at most `most`; the settings give its address and the window size.

    `on_window` is called with the number of windows done and the total.

    Raises:
        NotThereError: there is no model, or no log yet.
        BadInputError: the model has no profile, or the log has another schema version.
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
    """Decide from windows, oldest first, which checks raise an alarm."""
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
    """The findings of a run, for /metrics: alarm, time, drifted checks, and coverage of the latest labelled window."""
    found = {(ALARM, ""): float(watch.alarm.raised), (LAST_RUN, ""): now}
    if watch.windows:
        found[DRIFTED_CHECKS, ""] = float(len(watch.windows[-1].drifted))
    measured = [window.quality.metrics for window in watch.windows if window.quality]
    for level in watch.metadata.grade_sets if measured else ():
        if (share := measured[-1].get(name_coverage(level))) is not None:
            found[COVERAGE, level] = share
    return found


def read_reference(models: Path) -> ModelMetadata:
    """Read the metadata of the serving bundle, with the reference profiles for live traffic."""
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
