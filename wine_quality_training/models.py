"""The models, by name. Adding one is adding one line to MODELS."""

from collections.abc import Callable

from sklearn.base import BaseEstimator, is_classifier
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

MODELS: dict[str, Callable[[int], BaseEstimator]] = {
    "RandomForestRegressor": lambda seed: RandomForestRegressor(100, random_state=seed, n_jobs=-1),
    "RandomForestClassifier": lambda seed: RandomForestClassifier(100, random_state=seed, n_jobs=-1),
    "ExtraTreesClassifier": lambda seed: ExtraTreesClassifier(100, random_state=seed, n_jobs=-1),
    "DecisionTreeClassifier": lambda seed: DecisionTreeClassifier(random_state=seed),
    "KNeighborsRegressor": lambda seed: KNeighborsRegressor(5, n_jobs=-1),
}


def make_model(name: str, seed: int) -> Pipeline:
    """Make an unfitted pipeline, imputation included, of a model named in MODELS."""
    return impute_before(MODELS[name](seed))


def impute_before(estimator: BaseEstimator) -> Pipeline:
    """Make the unfitted pipeline of an estimator: blank cells are filled first, with the mean of their column."""
    return Pipeline([("impute", SimpleImputer(strategy="mean")), ("model", estimator)])


def predicts_grades(model: Pipeline) -> bool:
    """Say whether a model answers with a grade (a classifier) or with a number (a regressor)."""
    return bool(is_classifier(model))


def shorten_name(name: str) -> str:
    """Give a model's file name: rfr for RandomForestRegressor."""
    return "".join(letter for letter in name if letter.isupper()).lower()
