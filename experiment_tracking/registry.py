"""The registry: versions of one model, and the alias of the one that serves."""

import mlflow
from mlflow.exceptions import MlflowException

from experiment_tracking.tracking import TrackedModel
from wine_data.sources import WineData
from wine_quality_training.evaluate import Evaluation
from wine_quality_training.models import predicts_grades

MODEL, CHAMPION = "wine-quality", "champion"


def choose_classifier(evaluations: list[Evaluation]) -> Evaluation:
    """The leak-free classifier with the best quadratic weighted kappa in cross-validation.

    The holdout has no say, so its score stays an estimate of what to expect.
    """
    classifiers = [e for e in evaluations if e.protocol == "leak-free" and predicts_grades(e.pipeline)]
    return max(classifiers, key=lambda evaluation: evaluation.score_on("cv").kappa)


def register_model(tracked: TrackedModel, data: WineData) -> str:
    """Register a tracked model as the next version of wine-quality, and return that version."""
    client = mlflow.MlflowClient()
    try:
        client.get_registered_model(MODEL)
    except MlflowException:
        client.create_registered_model(MODEL, description="Grade of a wine, 3 to 9, from twelve features.")
    version = client.create_model_version(
        MODEL, tracked.model_uri, tracked.run_id, tags={"model": tracked.name, "data.fingerprint": data.fingerprint}
    )
    return str(version.version)


def promote_version(version: str) -> None:
    """Move the champion alias to a version."""
    mlflow.MlflowClient().set_registered_model_alias(MODEL, CHAMPION, version)


def load_champion() -> object:
    """Load the pipeline that the champion alias names."""
    return mlflow.sklearn.load_model(f"models:/{MODEL}@{CHAMPION}")
