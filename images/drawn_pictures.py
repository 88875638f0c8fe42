"""Pictures that the project draws itself: the wines, the lesson, the drill."""

from pathlib import Path

from images.picture import MEASURED, Picture

DRAWN_PICTURES = (  # of the same wines the first two are the same to the last pixel, so whatever differs is a reason
    Picture("heatmap", lambda stage, _: read(stage.figures / "correlations.png"), 0.0),
    Picture("protocols", lambda stage, _: read(stage.figures / "protocols.png"), 0.0),
    Picture("drill", lambda stage, _: read(stage.drill), MEASURED),
)


def read(path: Path) -> bytes:
    """The figure as it was drawn."""
    return path.read_bytes()
