import pandas as pd
import pytest

from wine_data.schema import FEATURES, WineQuality, feature_frame
from wine_data.sources import WineData
from wine_data.twin import PARAMETERS, sample_twin


def test_twin_wines_are_wines() -> None:
    for wine in feature_frame(sample_twin(500, seed=1)).to_dict("records"):
        WineQuality.model_validate(wine)


def test_a_larger_twin_of_the_same_seed_is_drawn_anew_each_time_the_same() -> None:
    pd.testing.assert_frame_equal(sample_twin(1000, seed=7), sample_twin(1000, seed=7))


def test_parameters_are_under_100_kilobytes() -> None:
    assert PARAMETERS.stat().st_size < 100_000


@pytest.mark.real_data
def test_no_twin_wine_equals_a_real_one(real_data: WineData) -> None:
    real = set(feature_frame(real_data.validation).itertuples(index=False, name=None))
    real |= set(feature_frame(real_data.train).itertuples(index=False, name=None))
    twin = feature_frame(sample_twin(100_000, seed=42))
    assert not [wine for wine in twin[list(FEATURES)].itertuples(index=False, name=None) if wine in real]
