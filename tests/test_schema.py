import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from wine_data.schema import (
    BOUNDS,
    EXAMPLE,
    FEATURES,
    MEASUREMENTS,
    SEEN,
    WineQuality,
    encode_type,
    feature_array,
    feature_frame,
)
from wine_data.sources.load import WineData

pytestmark = pytest.mark.fast

WINE: dict[str, float] = EXAMPLE


def test_features_are_the_measurements_and_the_colour_in_order() -> None:
    assert (*MEASUREMENTS, "red_wine") == FEATURES


def test_frame_for_fitting_and_array_for_serving_hold_the_same_numbers(few_wines: pd.DataFrame) -> None:
    frame = feature_frame(few_wines.sample(frac=1, axis="columns", random_state=1))
    wines = [WineQuality.model_validate(row) for row in frame.to_dict("records")]
    assert list(frame.columns) == list(FEATURES)
    np.testing.assert_array_equal(frame.to_numpy(), feature_array(wines))


def test_array_of_no_wines_has_no_rows_and_a_column_a_feature() -> None:
    assert feature_array([]).shape == (0, len(FEATURES))


def test_red_is_one_and_white_is_zero() -> None:
    assert encode_type(pd.DataFrame({"type": ["red", "white"]}))["red_wine"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("density", -1),
        ("density", 1001),  # kg / m3, where g / cm3 is meant
        ("pH", 14),
        ("alcohol", float("nan")),
        ("alcohol", float("inf")),
        ("red_wine", 0.5),
        ("red_wine", 2),
        ("sulphates", "much"),
        ("taste", 10),
    ],
)
def test_a_wine_that_cannot_be_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        WineQuality.model_validate(WINE | {field: value})
    assert [problem["loc"] for problem in refused.value.errors()] == [(field,)]


def test_a_wine_without_one_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="alcohol"):
        WineQuality.model_validate({name: WINE[name] for name in FEATURES if name != "alcohol"})


@pytest.mark.real_data
def test_the_ranges_said_to_be_seen_are_those_of_the_real_wines(real_data: WineData) -> None:
    table = feature_frame(real_data.validation)
    for name, seen in SEEN.items():
        assert (table[name].min(), table[name].max()) == seen, name


def test_what_was_seen_lies_within_the_bounds() -> None:
    assert list(SEEN) == list(MEASUREMENTS)
    for name, (low, high) in SEEN.items():
        assert BOUNDS[name][0] <= low < high <= BOUNDS[name][1]
