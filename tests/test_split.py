import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from tests.test_schema import WINE
from wine_data.schema import FEATURES, IDENTITY, MEASUREMENTS
from wine_data.sources.load import WineData
from wine_data.split import Split, distinct_wines, group_wines, is_holdout, split_wines

pytestmark = pytest.mark.fast


def test_a_wine_keeps_its_side_in_any_order_and_company(twin: WineData) -> None:
    wines = twin.validation
    shuffled = wines.sample(frac=0.5, random_state=1)
    pd.testing.assert_series_equal(is_holdout(shuffled), is_holdout(wines).loc[shuffled.index])


def test_a_hole_does_not_change_the_side_but_in_what_is_hashed_it_makes_it_training(twin: WineData) -> None:
    wines = twin.train.head(1000)
    for column in MEASUREMENTS:
        side = is_holdout(wines.assign(**{column: np.nan}))
        pd.testing.assert_series_equal(side, is_holdout(wines) & (column not in IDENTITY))


def test_the_hash_of_a_known_wine_never_changes() -> None:
    assert group_wines(pd.DataFrame([WINE | {"type": "white"}])).tolist() == [6254517210340669845]


def test_distinct_wines_drop_repeats_and_the_same_wine_with_holes() -> None:
    wine = {"type": "red", "red_wine": 1, "quality": 5} | dict.fromkeys(MEASUREMENTS, 1.0)
    table = pd.DataFrame([wine, wine, wine | {"pH": np.nan}, wine | {"pH": np.nan, "sulphates": 2.0}])
    assert distinct_wines(table)["sulphates"].tolist() == [1.0, 2.0]


def test_distinct_wines_do_not_depend_on_the_order_of_the_rows(twin: WineData) -> None:
    pd.testing.assert_frame_equal(distinct_wines(twin.train.iloc[::-1]), distinct_wines(twin.train))


def test_no_group_stands_on_both_sides_nor_in_two_folds(twin_split: Split) -> None:
    training, holdout = set(group_wines(twin_split.train)), set(group_wines(twin_split.holdout))
    assert not training & holdout
    groups = group_wines(twin_split.train).to_numpy()
    for fit_on, score_on in twin_split.folds:
        assert not set(groups[fit_on]) & set(groups[score_on])
    scored = np.concatenate([score_on for _, score_on in twin_split.folds])
    assert sorted(scored) == list(range(len(groups)))


def test_sides_and_folds_are_even_in_size_and_grades(twin_split: Split) -> None:
    grades = twin_split.train["quality"]
    for _, score_on in twin_split.folds:
        assert len(score_on) == pytest.approx(len(grades) / 5, rel=0.03)
        assert (grades.iloc[score_on] == 6).mean() == pytest.approx((grades == 6).mean(), abs=0.01)
    share = len(twin_split.holdout) / (len(twin_split.holdout) + len(grades))
    assert share == pytest.approx(0.2, abs=0.02)


@pytest.mark.real_data
def test_the_real_wines_divide_as_documented(real_data: WineData) -> None:
    split = split_wines(real_data.train, real_data.validation, folds=5, seed=42)
    assert (len(split.train), len(split.holdout)) == (4241, 1079)
    assert group_wines(pd.concat([split.train, split.holdout])).nunique() == 5286


@pytest.mark.real_data
def test_near_repeats_are_as_rare_as_documented(real_data: WineData) -> None:
    wines = distinct_wines(real_data.train, real_data.validation)
    holdout = is_holdout(wines).to_numpy()
    differing = np.rint(cdist(wines[list(FEATURES)], wines[list(FEATURES)], "hamming") * len(FEATURES))
    np.fill_diagonal(differing, len(FEATURES))
    near = differing <= 1
    assert near.any(axis=1).sum() == 98
    one, other = np.nonzero(near)
    assert (wines["quality"].to_numpy()[one] == wines["quality"].to_numpy()[other]).all()
    assert near[np.ix_(holdout, ~holdout)].any(axis=1).sum() == 6
    assert (differing <= 3)[np.ix_(holdout, ~holdout)].any(axis=1).sum() == 8
