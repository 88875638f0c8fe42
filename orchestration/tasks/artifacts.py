"""Artifacts of a run on Prefect's pages: pictures, and the progress of a long task."""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import cast
from uuid import UUID

from matplotlib.figure import Figure
from prefect.artifacts import create_image_artifact, create_progress_artifact, update_progress_artifact


def create_picture_artifact(figure: Figure, key: str, description: str) -> None:
    """Create an image artifact from a figure: a PNG of about 40 KB inside a data URL."""
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=80)
    address = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
    create_image_artifact(address, key=key, description=description)


def start_progress(key: str, description: str) -> Callable[[float], None]:
    """Create a progress artifact at 0, and return a function that sets it to a share between 0 and 1."""
    artifact_id = cast(UUID, create_progress_artifact(0.0, key=key, description=description))

    def move(share: float) -> None:
        update_progress_artifact(artifact_id, min(100.0, 100 * share))

    return move
