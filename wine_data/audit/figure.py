"""The audit as a figure: how few wines there are, and how many of them are in both files."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wine_data.schema import ROW, ROWS
from wine_data.split import drop_duplicates, is_in

AGAIN_COLOUR, NEW_COLOUR = "#8c1c3f", "#c9b458"


def plot_audit(train: pd.DataFrame, validation: pd.DataFrame) -> Figure:
    """Plot how many rows of each file are new wines, and how many repeat an earlier row."""
    new_to_train, known = len(drop_duplicates(train)), int(is_in(validation, train).sum())
    new = np.array([new_to_train, len(validation) - known])
    again = np.array([len(train) - new_to_train, known])
    figure = Figure(figsize=(9, 2.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.barh([0, 1], new, color=NEW_COLOUR, label=f"{ROW} met for the first time")
    axes.barh([0, 1], again, left=new, color=AGAIN_COLOUR, label=f"{ROW} met before")
    for position in (0, 1):
        total = new[position] + again[position]
        axes.annotate(f" {new[position]:,} new of {total:,} rows", (total, position), va="center")
    axes.set(xlabel="rows", xlim=(0, (new + again).max() * 1.32), yticks=[0, 1])
    axes.set_yticklabels(["train file", "validation file"])
    axes.invert_yaxis()
    axes.set_title(f"Reading the train file and then the validation file: how many {ROWS} are new?", loc="left")
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
