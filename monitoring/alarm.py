"""When drift becomes an alarm: a check has drifted in the latest window and in K of the last N.

One window in a hundred may say "drifted" by chance, one of a bad hour for a good reason. Windows in which a check
could not be evaluated (too few answers, no labels yet) do not count: for it the latest is the latest evaluated,
but not of longer ago than RECENT windows, or an alarm would last for ever once tasters stop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from deployment.prediction_log.windows import Span
from monitoring.drift import Check

DRIFTED, OF = 2, 3  # K and N
RECENT = 12  # windows that labels may be late


@dataclass(frozen=True)
class Finding:
    """A check that calls for an alarm: its latest figures, and the first of the windows that count."""

    check: Check
    windows: int
    since: float

    def sentence(self) -> str:
        """What drifted, for people."""
        return f"{self.check.kind}, {self.check.sentence()}, in {self.windows} of the last {OF} windows"


@dataclass(frozen=True)
class Alarm:
    """What calls for action, the strongest first; no findings, no alarm."""

    findings: tuple[Finding, ...]

    @property
    def raised(self) -> bool:
        """Whether there is anything to act on."""
        return bool(self.findings)

    @property
    def since(self) -> float:
        """The start of the first window that counts."""
        return min(finding.since for finding in self.findings)

    def kinds(self) -> tuple[str, ...]:
        """Which kinds of checks drifted."""
        return tuple(dict.fromkeys(finding.check.kind for finding in self.findings))

    def reason(self) -> str:
        """The alarm in a few words, for a run that is started for it."""
        names = [finding.check.name for finding in self.findings]
        return f"drift of {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def raise_alarm(windows: Sequence[tuple[Span, Sequence[Check]]]) -> Alarm:
    """Decide from windows, oldest first, which checks call for an alarm."""
    evaluated: dict[tuple[str, str], list[tuple[Span, Check]]] = {}
    for span, checks in windows[-RECENT:]:
        for check in checks:
            evaluated.setdefault((check.kind, check.name), []).append((span, check))
    findings = [found for history in evaluated.values() if (found := _find(history[-OF:]))]
    return Alarm(tuple(sorted(findings, key=lambda finding: -finding.check.strength)))


def _find(history: Sequence[tuple[Span, Check]]) -> Finding | None:
    drifted = [(span, check) for span, check in history if check.drifted]
    latest = history[-1][1]
    if not latest.drifted or len(drifted) < DRIFTED:
        return None
    return Finding(latest, len(drifted), drifted[0][0].since)
