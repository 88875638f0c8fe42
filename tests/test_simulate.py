"""Simulated traffic: what each drift does to wines and grades, and what a real API makes of it."""

from pathlib import Path

import pandas as pd
import pytest

from commands import BadInputError, NotThereError
from monitoring.simulate.drifts import Drift
from monitoring.simulate.traffic import Traffic, sample_drifted, send_wines
from tests.conftest import NOWHERE, isolated_environment
from tests.messages import assert_failed_in_one_line
from tests.processes import run_module
from wine_data.schema import BOUNDS, FEATURES, FLAGS, GRADES, TARGET

pytestmark = pytest.mark.fast

SAME = sample_drifted(Drift("none"), 2000, seed=3)


@pytest.mark.parametrize(
    "drift", [Drift(), Drift("shift", "pH", 1), Drift("colour", size=0.6), Drift("grades")], ids=str
)
def test_a_drift_draws_the_same_wines_for_the_same_seed(drift: Drift) -> None:
    wines = sample_drifted(drift, 100, seed=5)
    pd.testing.assert_frame_equal(wines, sample_drifted(drift, 100, seed=5))
    assert len(wines) == 100
    assert wines[TARGET].isin(GRADES).all()


def test_a_shift_moves_one_measurement_and_the_grades_of_extreme_wines() -> None:
    shifted = sample_drifted(Drift("shift", "alcohol", 1), 2000, seed=3)
    others = [name for name in FEATURES if name != "alcohol"]
    pd.testing.assert_frame_equal(shifted[others], SAME[others])
    assert (shifted["alcohol"] - SAME["alcohol"]).mean() == pytest.approx(SAME["alcohol"].std(), rel=0.1)
    lower = SAME[TARGET] - shifted[TARGET]
    assert set(lower.unique()) <= {0, 1, 2}  # one, where two would go under 3
    assert shifted["alcohol"][lower > 0].min() > shifted["alcohol"][(lower == 0) & (SAME[TARGET] > 3)].max()


def test_no_shift_leaves_what_a_measurement_can_be() -> None:
    shifted = sample_drifted(Drift("shift", "citric_acid", -9), 100, seed=3)
    assert shifted["citric_acid"].min() == BOUNDS["citric_acid"][0]


def test_a_colour_mix_has_the_share_of_red_that_was_asked_for() -> None:
    assert sample_drifted(Drift("colour", size=0.6), 2000, seed=3)[FLAGS[0]].mean() == pytest.approx(0.6, abs=0.04)
    assert sample_drifted(Drift("colour", size=1), 50, seed=3)[FLAGS[0]].mean() == 1


def test_grades_alone_leaves_the_wines_as_they_are() -> None:
    harsh = sample_drifted(Drift("grades", size=1), 2000, seed=3)
    pd.testing.assert_frame_equal(harsh[list(FEATURES)], SAME[list(FEATURES)])
    assert (SAME[TARGET] - harsh[TARGET]).where(SAME[TARGET] > 3, 1).eq(1).all()


@pytest.mark.parametrize(
    "wrong", [{"kind": "sunshine"}, {"feature": "price"}, {"kind": "colour", "size": 2.0}], ids=str
)
def test_what_is_no_drift_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(BadInputError):
        Drift(**wrong)  # type: ignore[arg-type]


def test_an_api_answers_refuses_and_gets_grades(small_api: str) -> None:
    sent = send_wines(small_api, SAME.head(60), Traffic(labels=0.5, delay=10))
    assert (sent.answered, sent.refused) == (60, 0)
    assert 15 < sent.graded < 45
    milligrams = sample_drifted(Drift("unit", "chlorides"), 20, seed=1)
    assert send_wines(small_api, milligrams, Traffic(labels=1)) == type(sent)(0, 20, 0)


def test_where_no_api_listens_the_error_names_make_serve() -> None:
    with pytest.raises(NotThereError, match="make serve"):
        send_wines(NOWHERE, SAME.head(1))


def test_the_command_sends_what_its_options_say(small_api: str, tmp_path: Path) -> None:
    arguments = ["--wines", "30", "--labels", "1", "--address", small_api]
    done = run_module("monitoring.simulate", isolated_environment(tmp_path), *arguments)
    assert done.returncode == 0, done.stderr
    assert "30 wines answered, 0 refused, 30 graded by tasters\nNext: make monitor" in done.stdout
    wrong = run_module("monitoring.simulate", isolated_environment(tmp_path), *arguments, "--labels", "7")
    assert_failed_in_one_line(wrong, 2, "--labels", "7")
