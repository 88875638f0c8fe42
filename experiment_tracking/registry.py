"""The registry: versions of one model, and the alias of the one that serves."""

import mlflow
from mlflow.exceptions import MlflowException

from experiment_tracking.tracking import TrackedModel
from wine_data.sources import WineData

MODEL, CHAMPION = "wine-quality", "champion"


def register_model(tracked: TrackedModel, data: WineData) -> str:
    """Register a tracked model as the next version of wine-quality, and return that version."""
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(MODEL, description="Grade of a wine, 3 to 9, from twelve features.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
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
