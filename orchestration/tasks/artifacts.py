"""What a run leaves on Prefect's pages beside its states: pictures, and how far a long part has come."""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import cast
from uuid import UUID

from matplotlib.figure import Figure
from prefect.artifacts import create_image_artifact, create_progress_artifact, update_progress_artifact


def create_picture_artifact(figure: Figure, key: str, description: str) -> None:
    """Leave a figure as an image artifact, a PNG of some 40 KB that travels inside its own address."""
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=80)
    address = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
    create_image_artifact(address, key=key, description=description)


def start_progress(key: str, description: str) -> Callable[[float], None]:
    """Leave a progress artifact at nothing, and return what moves it to a share between 0 and 1."""
    artifact_id = cast(UUID, create_progress_artifact(0.0, key=key, description=description))

    def move(share: float) -> None:
        update_progress_artifact(artifact_id, min(100.0, 100 * share))

    return move
