"""The API under load and faults: the short forms of what make soak runs."""

import random
from pathlib import Path

import pandas as pd
import pytest

from tests.benchmarks.fault_study import API_FAULTS, FAULTS, try_fault
from tests.benchmarks.soak_study import find_slope, run_soak
from tests.benchmarks.traffic import Traffic, make_bundles

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Two bundles, and the wines to ask for."""
    models = tmp_path_factory.mktemp("reliability") / "models"
    return models, make_bundles(models)


def test_a_soak_gets_no_wrong_answer_and_loses_none(tmp_path: Path) -> None:
    rows, sound = run_soak(tmp_path, 10_000, seed=1)
    assert sound, rows


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_under_load_gives_no_wrong_answer(fault: str, made: tuple[Path, pd.DataFrame]) -> None:
    (outcome,) = try_fault(fault, *made, seed=random.Random(fault).randrange(1000), tries=1)
    assert (outcome.wrong, outcome.errors, outcome.problem) == (0, 0, "")
    if "kill" not in fault or fault not in API_FAULTS:
        assert outcome.rows == 0
        assert outcome.lost == 0 or fault.startswith("SIGTERM")


def test_an_answer_of_another_model_is_counted_as_wrong(made: tuple[Path, pd.DataFrame]) -> None:
    traffic = Traffic.of_bundles("http://127.0.0.1:1", *made)
    pairs = zip(traffic.expected["1"], traffic.expected["2"], strict=True)
    place, mean, other = next((at, a, b) for at, ((_, a), (_, b)) in enumerate(pairs) if abs(a - b) > 0.01)
    grade = traffic.expected["1"][place][0]
    right = {"prediction": grade, "expected_quality": mean, "request_id": "a"}
    traffic.check([place], [right], "1")
    assert traffic.counts["wrong"] == 0
    traffic.check([place], [right | {"expected_quality": other}], "1")
    assert traffic.counts["wrong"] == 1


def test_the_slope_of_memory_leaves_the_warm_up_out() -> None:
    memory = [(0, 50.0), (10_000, 100.0), (50_000, 100.0), (100_000, 101.0), (150_000, 102.0)]
    assert find_slope(memory, 160_000) == pytest.approx(2.0)
