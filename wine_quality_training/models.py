"""The models, by name. To add one, add a line to MODELS, or to ORDINAL if its expected grade decides."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # commands list the names without waiting for scikit-learn
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

# The module and the parameters of each class; the seed is added if the class draws at random.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "RandomForestRegressor": ("sklearn.ensemble", {"n_estimators": 100, "n_jobs": -1}),
    "RandomForestClassifier": ("sklearn.ensemble", {"n_estimators": 100, "n_jobs": -1}),
    "ExtraTreesClassifier": ("sklearn.ensemble", {"n_estimators": 100, "n_jobs": -1}),
    "DecisionTreeClassifier": ("sklearn.tree", {}),
    "KNeighborsRegressor": ("sklearn.neighbors", {"n_neighbors": 5, "n_jobs": -1}),
}
# Models whose expected grade decides (estimators.OrdinalClassifier): the name and parameters of the inner classifier.
# The values were the best in a search on train of the published wines (max_features .32 is the default 3). 200 trees
# gain nothing in cross-validation and take twice the time. As published, the model would show nothing new.
ORDINAL: dict[str, tuple[str, dict[str, Any]]] = {
    "OrdinalForestClassifier": ("ExtraTreesClassifier", {"criterion": "entropy"}),
}
ALL_MODELS = (*MODELS, *ORDINAL)


def make_model(name: str, seed: int) -> "Pipeline":
    """Make an unfitted pipeline, with imputation, for a model named in ALL_MODELS."""
    if name in ORDINAL:
        from wine_quality_training.estimators import OrdinalClassifier

        inner, parameters = ORDINAL[name]
        return impute_before(OrdinalClassifier(_make_estimator(inner, seed).set_params(**parameters)))
    return impute_before(_make_estimator(name, seed))


def is_published(name: str) -> bool:
    """Whether a model is also scored as published."""
    return name in MODELS


def _make_estimator(name: str, seed: int) -> "BaseEstimator":
    module, parameters = MODELS[name]
    estimator = getattr(import_module(module), name)(**parameters)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=seed)
    return estimator


def impute_before(estimator: "BaseEstimator") -> "Pipeline":
    """Make an unfitted pipeline that fills blank cells with the mean of their column before the estimator."""
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
