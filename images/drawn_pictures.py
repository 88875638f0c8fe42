"""Pictures that the project draws itself: the wines, the lesson, the drill."""

from pathlib import Path

from images.picture import MEASURED, Picture

DRAWN_PICTURES = (
    Picture("heatmap", lambda stage, _: read(stage.figures / "correlations.png")),
    Picture("protocols", lambda stage, _: read(stage.figures / "protocols.png")),
    Picture("drill", lambda stage, _: read(stage.drill), MEASURED),
)


def read(path: Path) -> bytes:
    """The figure as it was drawn."""
    return path.read_bytes()
