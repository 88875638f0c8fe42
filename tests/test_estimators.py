"""The kernel, the grades made of numbers, and the blend of a forest and the kernel."""

import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from sklearn.linear_model import LinearRegression
from sklearn.utils.estimator_checks import check_estimator

from wine_data.schema import TARGET, feature_frame
from wine_data.split import Split
from wine_quality_training.estimators import (
    ExpectedGrade,
    GradesFromNumbers,
    KernelRegressor,
    OrdinalClassifier,
    blend_grades,
)
from wine_quality_training.models import impute_before, predicts_grades

pytestmark = pytest.mark.fast

BLEND = blend_grades(ExtraTreesClassifier(10, random_state=1))
MODELS: dict[str, BaseEstimator] = {"regressor": ExpectedGrade(BLEND), "classifier": OrdinalClassifier(BLEND)}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_the_kernel_passes_the_checks_of_scikit_learn() -> None:
    check_estimator(KernelRegressor())


def test_the_kernel_predicts_what_a_gaussian_process_does(twin_split: Split) -> None:
    X, y = feature_frame(twin_split.train).to_numpy()[:600], twin_split.train[TARGET].to_numpy()[:600]
    ours = KernelRegressor(length=3, ridge=0.4).fit(X[:500], y[:500])
    scale = (X - X[:500].mean(axis=0)) / X[:500].std(axis=0)
    process = GaussianProcessRegressor(Matern(3, nu=0.5), alpha=0.4, optimizer=None)
    process.fit(scale[:500], y[:500] - y[:500].mean())
    np.testing.assert_allclose(ours.predict(X[500:]), process.predict(scale[500:]) + y[:500].mean(), rtol=1e-8)


def test_a_kernel_from_a_pickle_of_an_earlier_version_predicts() -> None:
    state = {"length": 2.0, "ridge": 0.5, "n_features_in_": 1, "mean_": 5.0, "weights_": np.array([1.0, 2.0])}
    state |= {"offsets_": np.array([1.0]), "scales_": np.array([2.0]), "wines_": np.array([[0.0], [1.0]])}
    model = KernelRegressor()
    model.__setstate__(state)
    np.testing.assert_allclose(model.predict([[1.0]]), 5 + 1 + 2 * np.exp(-1 / 2))


def test_grades_from_numbers_are_the_nearest_ones() -> None:
    X = np.array([[4.0], [5.0], [6.0], [8.0]])
    model = GradesFromNumbers(LinearRegression(), spread=0.5).fit(X, np.array([4, 5, 6, 8]))
    wines = np.array([[1.0], [4.4], [4.6], [6.9], [7.1], [30.0]])  # between 6 and 8 the bound is 7
    assert model.predict(wines).tolist() == [4, 4, 5, 6, 8, 8]
    probabilities = model.predict_proba(wines)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities[1, 0] == pytest.approx(0.5793, abs=1e-4)  # the normal distribution at 0.1 / 0.5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", MODELS)
def test_a_blend_takes_tables_and_arrays_without_a_warning(kind: str, twin_split: Split) -> None:
    X, y = feature_frame(twin_split.train)[:300], twin_split.train[TARGET][:300]
    for wines in (X, X.to_numpy()):
        model = impute_before(clone(MODELS[kind])).fit(wines, y)
        assert model.predict(wines).shape == (300,)
        assert predicts_grades(model) == (kind == "classifier")


@pytest.mark.parametrize("kind", MODELS)
def test_a_blend_answers_the_same_from_its_pickle_and_from_a_clone(kind: str, twin_split: Split) -> None:
    X, y = feature_frame(twin_split.train)[:300], twin_split.train[TARGET][:300]
    model = impute_before(MODELS[kind]).fit(X, y)
    for again in (pickle.loads(pickle.dumps(model)), clone(model).fit(X, y)):
        np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_a_blend_gives_probabilities_of_the_grades_it_saw(twin_split: Split) -> None:
    wines = twin_split.train[:300]
    model = impute_before(BLEND).fit(feature_frame(wines), wines[TARGET])
    assert model.classes_.tolist() == sorted(wines[TARGET].unique())
    np.testing.assert_allclose(model.predict_proba(feature_frame(wines)).sum(axis=1), 1)


def test_an_expected_grade_can_be_made_of_a_fitted_classifier(twin_split: Split) -> None:
    X, y = feature_frame(twin_split.train)[:300].fillna(0), twin_split.train[TARGET][:300]
    regressor = ExpectedGrade(ExtraTreesClassifier(10, random_state=1)).fit(X, y)
    again = ExpectedGrade.of_fitted(regressor.classifier_)
    np.testing.assert_array_equal(again.predict(X), regressor.predict(X))
