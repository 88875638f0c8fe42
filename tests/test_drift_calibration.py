"""Whether the drift alarm comes when it should, and only then: tests.benchmarks.drift_alarm on a few windows."""

import pytest

from monitoring.drift import INPUTS, PREDICTIONS, QUALITY, REFUSALS
from monitoring.simulate.drifts import Drift
from tests.benchmarks.drift_study import (
    LABELS,
    LEAD,
    Checked,
    Reference,
    Traffic,
    await_alarm,
    look_back,
    make_reference,
    watch_undrifted,
)
from wine_data.sources.load import WineData

SIZE, SEED = 1_000, 1


@pytest.fixture(scope="module")
def reference(twin: WineData) -> Reference:
    return make_reference(twin)


@pytest.fixture(scope="module")
def undrifted(reference: Reference) -> list[Checked]:
    return watch_undrifted(reference, SIZE, 30, SEED)


def test_no_alarm_is_raised_where_nothing_drifts(undrifted: list[Checked]) -> None:
    assert [alarm.reason() for alarm in look_back(undrifted) if alarm.raised] == []


def test_every_check_is_made_of_an_undrifted_window(undrifted: list[Checked]) -> None:
    kinds = {check.kind for _, checks in undrifted for check in checks}
    assert kinds == {INPUTS, PREDICTIONS, REFUSALS, QUALITY}


@pytest.mark.parametrize(
    ("drift", "concerned", "labels", "kinds", "within"),
    [
        pytest.param(Drift("shift", "alcohol", 0.25), 1, 0, {INPUTS}, 4, id="alcohol by 0.25 sd"),
        pytest.param(Drift("shift", "alcohol", 0.5), 1, 0, {INPUTS}, 2, id="alcohol by 0.5 sd"),
        pytest.param(Drift("shift", "alcohol", 1), 1, 0, {INPUTS, PREDICTIONS}, 2, id="alcohol by 1 sd"),
        pytest.param(Drift("colour", size=0.6), 1, 0, {INPUTS}, 2, id="60 % red"),
        pytest.param(Drift("unit", "chlorides"), 0.5, 0, {REFUSALS}, 2, id="mg for g"),
        pytest.param(Drift("grades", size=1), 1, LABELS, {QUALITY}, 2, id="grades alone"),
    ],
)
def test_a_drift_raises_an_alarm_of_its_kind(
    reference: Reference, undrifted: list[Checked], drift: Drift, concerned: float, labels: float, kinds: set[str],
    within: int,
) -> None:  # fmt: skip
    traffic = Traffic("", drift, concerned, labels)
    found = await_alarm(reference, traffic, SIZE, undrifted[:LEAD], SEED)
    assert found.delay <= within
    raised = set(found.alarm.kinds())
    assert kinds <= raised <= (kinds | {PREDICTIONS} if INPUTS in kinds else kinds)  # other wines get other grades
