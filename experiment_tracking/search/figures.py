"""The figures of a search. Each function returns a matplotlib Figure and saves nothing."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from experiment_tracking.search.trials import SCORED, Trial
from figure_style import GREY, RED, make_axes

LOSS = "RMSE"
ACROSS = 3  # panels per row
LOGARITHMIC = ("learning_rate", "min_child_weight", "reg_alpha", "reg_lambda")


def plot_study(trials: Sequence[Trial], family: str) -> Figure:
    """Plot the loss of the trials in order, with the best so far, and against each value; pruned trials are grey."""
    rows = _tabulate(trials, family)
    names = ["trial", *map(str, _select_values(rows))]
    lines = -(-len(names) // ACROSS)
    figure, axes = make_axes(lines, ACROSS, height=2.4 + 0.8 / lines, width=9, share="y")
    for axis in axes[len(names) :]:
        axis.remove()
    for axis, name in zip(axes, names, strict=False):
        _scatter(axis, rows, name, size=14)
        axis.set_xlabel(name)
        if name in LOGARITHMIC:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
    best = rows["loss"].where(rows["scored"]).cummin().ffill()
    axes[0].step(rows["trial"], best, where="post", color="black", linewidth=0.9, label="best so far")
    for axis in axes[: len(names) : ACROSS]:
        axis.set_ylabel(LOSS)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle(f"{family}: the {LOSS} of each trial, in order and by its values")
    return figure


def plot_parallel(trials: Sequence[Trial], family: str) -> Figure:
    """Plot each trial as a line across its values; darker lines have a lower loss."""
    rows = _tabulate(trials, family)
    values = _select_values(rows)
    figure, (axis,) = make_axes(1, 1, height=3.8, width=1.5 * values.shape[1] + 2.5)
    norm = Normalize(rows["loss"].min(), float(rows["loss"].quantile(0.9)))
    colours = ListedColormap(mpl.colormaps["magma"](np.linspace(0, 0.85, 256)))  # lighter ones are not visible on white
    lines = np.column_stack([_scale(values[name]) for name in values])
    for line, loss in sorted(zip(lines, rows["loss"], strict=True), key=lambda pair: -pair[1]):
        axis.plot(line, color=colours(norm(loss)), linewidth=0.9, alpha=0.8)
    for position, name in enumerate(values):
        axis.axvline(position, color="black", linewidth=0.6)
        for height, end in ((-0.06, values[name].min()), (1.03, values[name].max())):
            axis.text(position, height, end if isinstance(end, str) else f"{end:.3g}", ha="center", fontsize=8)
    axis.set(
        title=f"{family}: the values of each trial; dark lines have a low {LOSS}",
        xticks=range(values.shape[1]),
        yticks=[],
        ylim=(-0.1, 1.1),
    )
    axis.set_xticklabels(values.columns, fontsize=8)
    axis.spines[:].set_visible(False)
    figure.colorbar(ScalarMappable(norm, colours), ax=axis, label=LOSS, extend="max")
    return figure


def plot_importance(trials: Sequence[Trial], family: str) -> Figure:
    """Plot the permutation importance of each value in a forest that predicts the trials' loss.

    It is the loss of R2 when a value is shuffled, averaged over 10 shuffles.
    """
    rows = _tabulate(trials, family)
    values = _select_values(rows)
    X = np.column_stack([_scale(values[name]) for name in values])
    forest = RandomForestRegressor(100, random_state=0).fit(X, rows["loss"])
    drops = permutation_importance(forest, X, rows["loss"], n_repeats=10, random_state=0).importances_mean
    order = np.argsort(drops)
    figure, (axis,) = make_axes(1, 1, height=0.4 * len(order) + 1.5, width=7)
    axis.barh(values.columns[order], drops[order], color=RED)
    axis.set(
        title=f"{family}: how much the {LOSS} of the {len(rows)} trials depends on each value",
        xlabel="permutation importance in a random forest of values to loss",
    )
    return figure


def _tabulate(trials: Sequence[Trial], family: str) -> pd.DataFrame:
    """The trials of a family with a loss, one per row: number, values, loss, whether scored on every fold."""
    return pd.DataFrame(
        [
            {"trial": trial.number, **trial.values, "loss": trial.result.loss, "scored": trial.result.outcome == SCORED}
            for trial in trials
            if trial.family == family and trial.result.loss is not None
        ]
    )


def _select_values(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=["trial", "loss", "scored"])


def _scatter(axis: Axes, rows: pd.DataFrame, name: str, size: int) -> None:
    for scored, colour, label in ((True, RED, "scored on every fold"), (False, GREY, "stopped after its first folds")):
        part = rows[rows["scored"] == scored]
        axis.scatter(part[name], part["loss"], color=colour, s=size, label=label)


def _scale(values: pd.Series) -> np.ndarray:
    """Scale values to 0 to 1: logarithmic ones by their logarithm, names by alphabetical order."""
    if not pd.api.types.is_numeric_dtype(values):
        values = values.astype("category").cat.codes
    numbers = np.asarray(np.log(values) if values.name in LOGARITHMIC else values, dtype=float)
    width = np.ptp(numbers)
    return (numbers - numbers.min()) / width if width else np.full(len(numbers), 0.5)
