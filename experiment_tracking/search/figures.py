"""The pictures of a search. Each function returns a matplotlib Figure and saves nothing."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from experiment_tracking.search.loop import Trial
from experiment_tracking.search.space import REGRESSOR, Study
from experiment_tracking.search.trial import SCORED

RED, GREY, DPI, FEWEST = "#8c1c3f", "#b8b8b8", 110, 4
ACROSS = 3  # panels beside each other
OUTCOMES = ((True, RED, "scored on every fold"), (False, GREY, "stopped after its first folds"))
LOGARITHMIC = ("learning_rate", "min_child_weight", "reg_alpha", "reg_lambda")


def name_loss(study: Study) -> str:
    """The loss of a study as an axis says it."""
    return "RMSE" if study.task == REGRESSOR else "1 - (accuracy + kappa) / 2"


def plot_history(trials: Sequence[Trial], study: Study) -> Figure:
    """Plot the loss of each trial, those that were stopped in grey, and the best so far."""
    figure = Figure(figsize=(7, 3.4), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    rows = tabulate_trials(trials, study)
    for scored, colour, label in OUTCOMES:
        part = rows[rows["scored"] == scored]
        axis.scatter(part["trial"], part["loss"], color=colour, s=16, label=label)
    best = rows["loss"].where(rows["scored"]).cummin().ffill()
    axis.step(rows["trial"], best, where="post", color="black", linewidth=0.9, label="best so far")
    axis.set(title=f"{study.name}: history", xlabel="trial", ylabel=name_loss(study))
    axis.legend(frameon=False, fontsize=8)
    return figure


def plot_parallel(trials: Sequence[Trial], study: Study) -> Figure:
    """Plot each trial as a line across its values; the darker, the lower its loss."""
    rows = tabulate_trials(trials, study)
    names = _list_values(rows)
    figure = Figure(figsize=(1.5 * len(names) + 2.5, 3.8), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    heights = pd.DataFrame({name: _scale(rows[name]) for name in names})
    norm = Normalize(rows["loss"].min(), float(rows["loss"].quantile(0.9)))
    colours = ListedColormap(mpl.colormaps["magma"](np.linspace(0, 0.85, 256)))  # the rest cannot be seen on white
    for (_, line), loss in sorted(zip(heights.iterrows(), rows["loss"], strict=True), key=lambda pair: -pair[1]):
        axis.plot(range(len(names)), line, color=colours(norm(loss)), linewidth=0.9, alpha=0.8)
    for position, name in enumerate(names):
        axis.axvline(position, color="black", linewidth=0.6)
        for height, text in zip((-0.06, 1.03), _name_ends(rows[name]), strict=True):
            axis.text(position, height, text, ha="center", fontsize=8)
    axis.set(title=f"{study.name}: every trial", xticks=range(len(names)), yticks=[], ylim=(-0.1, 1.1))
    axis.set_xticklabels(names, fontsize=8)
    axis.spines[:].set_visible(False)
    figure.colorbar(ScalarMappable(norm, colours), ax=axis, label=name_loss(study), extend="max")
    return figure


def plot_parameters(trials: Sequence[Trial], study: Study) -> Figure:
    """Plot the loss against each value that was varied."""
    rows = tabulate_trials(trials, study)
    names = _list_values(rows)
    lines = -(-len(names) // ACROSS)
    figure = Figure(figsize=(9, 2.4 * lines + 0.8), dpi=DPI, layout="constrained")
    axes = figure.subplots(lines, ACROSS, sharey=True, squeeze=False).ravel()
    for axis in axes[len(names) :]:
        axis.remove()
    for axis, name in zip(axes, names, strict=False):
        for scored, colour, label in OUTCOMES:
            part = rows[rows["scored"] == scored]
            axis.scatter(part[name], part["loss"], color=colour, s=14, label=label)
        axis.set_xlabel(name)
        if name in LOGARITHMIC:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
    for axis in axes[: len(names) : ACROSS]:
        axis.set_ylabel(name_loss(study))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.suptitle(f"{study.name}: value against loss")
    return figure


def plot_importance(trials: Sequence[Trial], study: Study) -> Figure:
    """Plot how much worse a forest fitted to the trials predicts their loss when one value is shuffled.

    This is permutation importance over the trials themselves: the share of the losses' variance that
    the forest no longer explains, 10 shuffles each.
    """
    rows = tabulate_trials(trials, study)
    names = _list_values(rows)
    X = np.column_stack([_scale(rows[name]) for name in names])
    forest = RandomForestRegressor(100, random_state=0).fit(X, rows["loss"])
    drops = permutation_importance(forest, X, rows["loss"], n_repeats=10, random_state=0).importances_mean
    order = np.argsort(drops)
    figure = Figure(figsize=(7, 0.4 * len(names) + 1.5), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    axis.barh([names[position] for position in order], drops[order], color=RED)
    axis.set(
        title=f"{study.name}: what the loss of the {len(rows)} trials hangs on",
        xlabel="permutation importance in a random forest of values to loss",
    )
    return figure


def plot_search(trials: Sequence[Trial], studies: Sequence[Study]) -> dict[str, Figure]:
    """Plot all that the trials at hand allow, by file name. With fewer than four of a study there is nothing to see."""
    figures = {}
    for study in studies:
        if len(tabulate_trials(trials, study)) >= FEWEST:
            name = study.name.replace(" ", "_")
            figures[f"{name}_history"] = plot_history(trials, study)
            figures[f"{name}_parallel"] = plot_parallel(trials, study)
            figures[f"{name}_parameters"] = plot_parameters(trials, study)
            figures[f"{name}_importance"] = plot_importance(trials, study)
    return figures


def tabulate_trials(trials: Sequence[Trial], study: Study) -> pd.DataFrame:
    """The trials of a study that have a loss, one row each: number, values, loss, whether scored on every fold."""
    return pd.DataFrame(
        [
            {"trial": trial.number, **trial.values, "loss": trial.result.loss, "scored": trial.result.outcome == SCORED}
            for trial in trials
            if trial.study == study and trial.result.loss is not None
        ]
    )


def _list_values(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows.columns if name not in ("trial", "loss", "scored")]


def _scale(values: pd.Series) -> np.ndarray:
    """Values between 0 and 1: logarithmic ones by their logarithm, names by their place in the alphabet."""
    if not pd.api.types.is_numeric_dtype(values):
        values = values.astype("category").cat.codes
    numbers = np.asarray(np.log(values) if values.name in LOGARITHMIC else values, dtype=float)
    width = float(np.ptp(numbers))
    scaled: np.ndarray = (numbers - numbers.min()) / width if width else np.full(len(numbers), 0.5)
    return scaled


def _name_ends(values: pd.Series) -> tuple[str, str]:
    low, high = values.min(), values.max()
    return (low, high) if isinstance(low, str) else (f"{low:.3g}", f"{high:.3g}")
