"""When drift becomes an alarm: a check has drifted in the latest window and in K of the last N.

A single window may drift by chance, or because of one bad hour. Windows in which a check could not be evaluated (too
few answers, no labels yet) do not count, and of those evaluated only the last RECENT windows, or an alarm would last
for ever once tasters stop.
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
