import json

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks.twin_fidelity import measure_fidelity
from wine_data.schema import FEATURES, WineQuality, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import distinct_wines, is_holdout, split_wines
from wine_data.twin.fit import fit_twin
from wine_data.twin.sample import PARAMETERS, sample_twin


def test_twin_wines_are_wines() -> None:
    for wine in feature_frame(sample_twin(500, seed=1)).to_dict("records"):
        WineQuality.model_validate(wine)


def test_the_same_seed_gives_the_same_wines_and_as_many_as_asked_for() -> None:
    pd.testing.assert_frame_equal(sample_twin(1000, seed=7), sample_twin(1000, seed=7))
    assert [len(sample_twin(count, seed=1)) for count in (0, 1, 77)] == [0, 1, 77]


def test_parameters_are_under_100_kilobytes() -> None:
    assert PARAMETERS.stat().st_size < 100_000


@pytest.mark.real_data
def test_no_twin_wine_equals_a_real_one(real_data: WineData) -> None:
    real = pd.concat([feature_frame(real_data.train), feature_frame(real_data.validation)])
    twin = feature_frame(sample_twin(100_000, seed=42))
    assert twin.merge(real, on=list(FEATURES)).empty


@pytest.mark.full
@pytest.mark.real_data
def test_the_twin_is_as_like_real_wines_as_the_goals_ask(real_data: WineData) -> None:
    figures = measure_fidelity(split_wines(real_data.train, real_data.validation, folds=5, seed=42))
    assert figures["distance"] <= 0.03
    assert figures["correlation"] <= 0.07
    assert figures["share"] <= 0.01
    assert figures["r2_twin"] >= 0.8 * figures["r2_real"]


@pytest.mark.full
@pytest.mark.real_data
def test_fitting_again_gives_the_committed_parameters(real_data: WineData) -> None:
    wines = distinct_wines(real_data.train, real_data.validation)
    fitted = fit_twin(wines[~is_holdout(wines)])
    committed = json.loads(PARAMETERS.read_text())
    assert fitted["red"]["quantiles"] == committed["red"]["quantiles"]
    assert fitted["white"]["grade_shares"] == committed["white"]["grade_shares"]
    np.testing.assert_allclose(fitted["white"]["means"], committed["white"]["means"], atol=0.02)
