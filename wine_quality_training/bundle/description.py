"""Collects the metadata of a fitted model."""

import platform
from importlib.metadata import version

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from commands import BadInputError
from wine_data.schema import BOUNDS, FEATURES, MEASUREMENTS, WineQuality, feature_frame
from wine_data.sources.load import Origin
from wine_quality_training.bundle.bundle import XGBOOST
from wine_quality_training.bundle.metadata import KnownAnswer, ModelMetadata
from wine_quality_training.bundle.profile import profile_wines
from wine_quality_training.coverage import calibrate_evaluation, list_coverage, name_coverage
from wine_quality_training.evaluate import Evaluation
from wine_quality_training.models import predicts_grades

KNOWN_ANSWERS = 8


def describe_model(evaluation: Evaluation, data: Origin, fitted_on: pd.DataFrame, **registration: str) -> ModelMetadata:
    """Collect the metadata of a fitted model.

    `data` says where the wines come from, `fitted_on` is the table that the model was fitted on. `registration` has
    name, version and run_id, once the model is registered.
    """
    table = feature_frame(fitted_on)
    return ModelMetadata(
        name=registration.get("name", ""),
        version=registration.get("version", ""),
        run_id=registration.get("run_id", ""),
        model=evaluation.name,
        protocol=evaluation.protocol,
        features=FEATURES,
        versions=_list_versions(evaluation.pipeline),
        data_source=data.source,
        data_fingerprint=data.fingerprint,
        metrics={name: value for score in evaluation.scores for name, value in score.name_metrics().items()}
        | name_coverage(list_coverage(evaluation)),
        ranges={name: (float(table[name].min()), float(table[name].max())) for name in FEATURES},
        answers=_predict_some(evaluation.pipeline, table),
        files={},
        profiles=profile_wines(fitted_on, evaluation.predictions.get("cv")),
        fills=_find_fills(evaluation.pipeline),
        decision=getattr(evaluation.pipeline.named_steps["model"], "rule_", None),
        grade_sets=calibrate_evaluation(evaluation),
    )


def _find_fills(pipeline: Pipeline) -> dict[str, float]:
    """The value, by measurement, that a pipeline of models.impute_before puts into a blank cell."""
    means = getattr(pipeline.named_steps.get("impute"), "statistics_", ())
    return {name: float(mean) for name, mean in zip(FEATURES, means, strict=False) if name in MEASUREMENTS}


def _list_versions(pipeline: Pipeline) -> dict[str, str]:
    """The versions of Python and of the libraries that a pickle of this pipeline depends on."""
    packages = {package: version(package) for package in ("scikit-learn", "numpy", "pandas")}
    if any(type(part).__module__.startswith("xgboost.") for part in pipeline.get_params().values()):
        packages["xgboost"] = version(XGBOOST)
    return {"python": platform.python_version(), **packages}


def _predict_some(pipeline: Pipeline, table: pd.DataFrame) -> tuple[KnownAnswer, ...]:
    """Predict KNOWN_ANSWERS wines that the API accepts, so that a server can check its predictions."""
    low, high = (pd.Series({name: BOUNDS[name][end] for name in FEATURES}) for end in (0, 1))
    possible = table[((table >= low) & (table <= high)).all(axis="columns")]
    if possible.empty:
        raise BadInputError(
            "no wine that the model was fitted on is possible: python -m wine_data.audit finds what is wrong"
        )
    some = possible.iloc[np.linspace(0, len(possible) - 1, KNOWN_ANSWERS).astype(int)]
    probabilities: list[dict[str, float]] = [{}] * len(some)
    if predicts_grades(pipeline):
        names = [str(grade) for grade in pipeline.classes_]
        probabilities = [dict(zip(names, row, strict=True)) for row in pipeline.predict_proba(some).tolist()]
    wines = [WineQuality.model_validate(wine).model_dump() for wine in some.to_dict("records")]
    return tuple(map(KnownAnswer, wines, pipeline.predict(some).astype(float).tolist(), probabilities))
