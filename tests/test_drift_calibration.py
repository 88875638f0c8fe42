"""Whether the drift alarm comes when it should, and only then: tests.benchmarks.drift_alarm on a few windows."""

from dataclasses import replace

import pytest

from monitoring.drift import INPUTS, PREDICTIONS, QUALITY, REFUSALS
from tests.benchmarks import drift_study as study
from wine_data.sources.load import WineData

SIZE, SEED = 1_000, 1
KINDS = ({INPUTS}, {INPUTS}, {INPUTS, PREDICTIONS}, {INPUTS}, {REFUSALS}, {QUALITY})  # of study.DRIFTED


@pytest.fixture(scope="module")
def reference(twin: WineData) -> study.Reference:
    return study.make_reference(twin)


@pytest.fixture(scope="module")
def undrifted(reference: study.Reference) -> list[study.Checked]:
    return study.watch_undrifted(reference, SIZE, 30, SEED)


def test_no_alarm_is_raised_where_nothing_drifts_and_everything_is_checked(undrifted: list[study.Checked]) -> None:
    assert [alarm.reason() for alarm in study.look_back(undrifted) if alarm.raised] == []
    kinds = {check.kind for _, checks in undrifted for check in checks}
    assert kinds == {INPUTS, PREDICTIONS, REFUSALS, QUALITY}


@pytest.mark.parametrize("distinct", [50, 100])
def test_no_alarm_is_raised_where_clients_ask_for_the_same_undrifted_wines_again(
    reference: study.Reference, distinct: int
) -> None:
    traffic = replace(study.REPEATED, distinct=distinct)
    repeated = study.watch_undrifted(reference, SIZE, 12, SEED, traffic)
    assert [alarm.reason() for alarm in study.look_back(repeated) if alarm.raised] == []
    assert {INPUTS, PREDICTIONS} <= {check.kind for _, checks in repeated for check in checks}


@pytest.mark.parametrize(
    ("traffic", "kinds", "within"),
    [*zip(study.DRIFTED, KINDS, (4, 2, 2, 2, 2, 2), strict=True)],
    ids=[traffic.name for traffic in study.DRIFTED],
)
def test_a_drift_raises_an_alarm_of_its_kind(
    reference: study.Reference, undrifted: list[study.Checked], traffic: study.Traffic, kinds: set[str], within: int
) -> None:
    found = study.await_alarm(reference, traffic, SIZE, undrifted[: study.LEAD], SEED)
    assert found.delay <= within
    raised = {finding.check.kind for finding in found.alarm.findings}
    assert kinds <= raised <= (kinds | {PREDICTIONS} if INPUTS in kinds else kinds)  # other wines get other grades
