"""The audit as a figure: the number of distinct wines, and how many of them are in both files."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figure_style import RED, WHITE, make_axes
from wine_data.schema import ROW
from wine_data.split import drop_duplicates, is_in


def plot_audit(train: pd.DataFrame, validation: pd.DataFrame) -> Figure:
    """Plot how many rows of each file are new wines, and how many repeat an earlier row."""
    new_to_train, known = len(drop_duplicates(train)), int(is_in(validation, train).sum())
    new = np.array([new_to_train, len(validation) - known])
    again = np.array([len(train) - new_to_train, known])
    figure, (axes,) = make_axes(1, 1, height=2.8, width=9)
    axes.barh([0, 1], new, color=WHITE, label=f"new {ROW}")
    axes.barh([0, 1], again, left=new, color=RED, label=f"repeats a {ROW} of an earlier row")
    for position in (0, 1):
        total = new[position] + again[position]
        axes.annotate(f" {new[position]:,} new of {total:,} rows", (total, position), va="center")
    axes.set(xlabel="rows", xlim=(0, (new + again).max() * 1.32), yticks=[0, 1])
    axes.set_yticklabels(["train file", "validation file"])
    axes.invert_yaxis()
    axes.set_title(f"{known / len(validation):.1%} of the validation rows repeat a {ROW} of the train file")
    axes.legend(loc="lower right", frameon=False)
    return figure
