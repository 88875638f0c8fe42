"""The models, by name. Adding one is adding one line to MODELS."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # commands list the names without waiting for scikit-learn
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

# The module and the parameters of each class; the seed is added where it draws at random.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "RandomForestRegressor": ("sklearn.ensemble", {"n_estimators": 100, "n_jobs": -1}),
    "RandomForestClassifier": ("sklearn.ensemble", {"n_estimators": 100, "n_jobs": -1}),
    "ExtraTreesClassifier": ("sklearn.ensemble", {"n_estimators": 100, "n_jobs": -1}),
    "DecisionTreeClassifier": ("sklearn.tree", {}),
    "KNeighborsRegressor": ("sklearn.neighbors", {"n_neighbors": 5, "n_jobs": -1}),
}
ALL_MODELS = tuple(MODELS)


def make_model(name: str, seed: int) -> "Pipeline":
    """Make an unfitted pipeline, imputation included, of a model named in MODELS."""
    module, parameters = MODELS[name]
    estimator = getattr(import_module(module), name)(**parameters)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=seed)
    return impute_before(estimator)


def impute_before(estimator: "BaseEstimator") -> "Pipeline":
    """Make an unfitted pipeline: blank cells are filled with the mean of their column, before the estimator."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline

    return Pipeline([("impute", SimpleImputer(strategy="mean")), ("model", estimator)])


def predicts_grades(model: "Pipeline") -> bool:
    """Whether a model predicts grades (a classifier) or numbers (a regressor)."""
    from sklearn.base import is_classifier

    return bool(is_classifier(model))


def shorten_name(name: str) -> str:
    """A model's file name: rfr for RandomForestRegressor."""
    return "".join(letter for letter in name if letter.isupper()).lower()
