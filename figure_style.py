"""The style of every figure: colours, resolution and bare axes."""

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

RED, WHITE, GREY = "#8c1c3f", "#c9b458", "#b8b8b8"
DPI = 110


def make_axes(
    rows: int, columns: int, height: float, width: float = 11, share: Literal["", "x", "y"] = ""
) -> tuple[Figure, list[Axes]]:
    """Make a figure and its axes, row by row; width and height per row are in inches, `share` is a common axis."""
    figure = Figure(figsize=(width, height * rows), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=share == "x", sharey=share == "y").ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes
