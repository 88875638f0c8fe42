"""Figures of the wines, the models, and the difference between the two protocols.

Each function returns a matplotlib Figure and saves nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.inspection import PartialDependenceDisplay, permutation_importance
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.pipeline import Pipeline

from figure_style import GREY, RED, WHITE, make_axes
from wine_data.schema import (
    CATEGORY,
    FEATURES,
    GRADES,
    KINDS,
    MEASUREMENTS,
    ROW,
    ROWS,
    TARGET,
    TYPE,
    TYPES,
    feature_frame,
)
from wine_data.split import Split
from wine_quality_training.benchmark_copies import CopyBenchmark
from wine_quality_training.coverage import measure_reliability
from wine_quality_training.evaluate import (
    AS_PUBLISHED,
    LEAK_FREE,
    Evaluation,
    Score,
    choose_classifier,
    round_predictions,
)

COLOURS = dict(zip(KINDS, (RED, WHITE), strict=False))
ENDS = GRADES[0] - 0.5, GRADES[-1] + 0.5  # of an axis of grades
SHUFFLES, POINTS = 10, 100  # per feature, for its importance and its partial dependence


def plot_boxes(wines: pd.DataFrame) -> Figure:
    """Plot a box plot of every measurement and the grade, by colour."""
    import seaborn as sns

    columns = [*MEASUREMENTS, TARGET]
    figure, axes = make_axes(-(-len(columns) // 4), 4, height=2.5)
    for axis in axes[len(columns) :]:
        axis.remove()
    for axis, column in zip(axes, columns, strict=False):
        sns.boxplot(wines, x=TYPE, y=column, hue=TYPE, palette=COLOURS, order=list(COLOURS), fliersize=1.5, ax=axis)
        axis.set(title=column, xlabel="", ylabel="")
    figure.suptitle(
        f"The distribution of each measurement and of the grade, in {' and in '.join(TYPES) or 'all'} {ROWS}"
    )
    return figure


def plot_correlations(wines: pd.DataFrame) -> Figure:
    """Plot a heatmap of the correlations between features and grade."""
    import seaborn as sns

    figure, (axis,) = make_axes(1, 1, height=6.8, width=7.6)
    numbers = {"annot": True, "fmt": ".2f", "annot_kws": {"size": 7}}
    correlations = wines[[*FEATURES, TARGET]].corr()
    sns.heatmap(correlations, vmin=-1, vmax=1, cmap="RdBu_r", square=True, ax=axis, cbar_kws={"shrink": 0.7}, **numbers)
    axis.set_title(f"Correlations of features and grade in {len(wines):,} {ROWS}")
    return figure


def plot_grades(wines: pd.DataFrame) -> Figure:
    """Plot how many wines have each grade."""
    figure, (axis,) = make_axes(1, 1, height=3.5, width=7)
    counts = wines[TARGET].value_counts().reindex(GRADES, fill_value=0)
    bars = axis.bar(list(map(str, GRADES)), counts, color=RED)
    axis.bar_label(bars, fmt="{:,.0f}")
    axis.set(title=f"How many {ROWS} have each grade", xlabel="grade", ylabel=ROWS)
    return figure


def plot_grades_by_type(wines: pd.DataFrame) -> Figure:
    """Plot the share of each grade, by category."""
    import seaborn as sns

    figure, (axis,) = make_axes(1, 1, height=3.5, width=7)
    shares = wines.groupby(TYPE)[TARGET].value_counts(normalize=True).rename("share").reset_index()
    sns.barplot(shares, x=TARGET, y="share", hue=TYPE, palette=COLOURS, ax=axis)
    axis.set(
        title=f"The share of each grade, by {CATEGORY}",
        xlabel="grade",
        ylabel=f"share of the {ROWS}",
    )
    return figure


def plot_protocols(scores: Sequence[Score]) -> Figure:
    """Plot each model as published and leak-free, by R2 and by accuracy."""
    figure, axes = make_axes(1, 2, height=3.6, width=10)
    shown = {
        "as published: validation file": (AS_PUBLISHED, "validation"),
        f"leak-free: holdout, {ROWS} never seen": (LEAK_FREE, "holdout"),
    }
    for axis, measure, title in zip(axes, ("r2", "accuracy"), ("R2", "accuracy"), strict=True):
        values = pd.DataFrame(
            {
                label: {each.model: each.metrics[measure] for each in scores if (each.protocol, each.scored_on) == kind}
                for label, kind in shown.items()
            }
        )
        values.plot.barh(ax=axis, color=[GREY, RED], width=0.78, legend=False)
        for bars, (_, column) in zip(axis.containers, values.items(), strict=True):
            labels = ["\N{EN DASH}" if np.isnan(value) else f"{value:.2f}" for value in column]
            axis.bar_label(bars, labels, padding=3)  # type: ignore[arg-type]  # of a bar plot all are bars
        axis.set(title=title, xlim=(min(0, axis.get_xlim()[0]) * 1.7, 1.15))
        axis.invert_yaxis()
        axis.axvline(0, color="black", linewidth=0.6)
    axes[1].set_yticklabels([])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"The same models, scored on {ROWS} that they were fitted on (grey) and on new {ROWS} (red)")
    return figure


def plot_predictions(evaluations: Sequence[Evaluation]) -> Figure:
    """Plot what each model predicted for the holdout wines of each grade."""
    chosen = [evaluation for evaluation in evaluations if evaluation.protocol == LEAK_FREE]
    across = min(3, len(chosen))
    figure, axes = make_axes(-(-len(chosen) // across), across, height=2.9, width=2.7 * across)
    for axis in axes[len(chosen) :]:
        axis.remove()
    for axis, evaluation in zip(axes, chosen, strict=False):
        table = evaluation.predictions["holdout"]
        scatter = np.random.default_rng(0).uniform(-0.25, 0.25, size=(2, len(table)))
        axis.plot(GRADES, GRADES, color="black", linewidth=0.8)
        axis.scatter(table[TARGET] + scatter[0], table["prediction"] + scatter[1], s=3, alpha=0.35, color=RED)
        axis.set(title=evaluation.name, xlim=ENDS, ylim=ENDS, xticks=GRADES, yticks=GRADES)
        axis.title.set_fontsize(9)
    figure.supxlabel("true grade", fontsize=10)
    figure.supylabel("prediction on the holdout, leak-free", fontsize=10)
    figure.suptitle(
        f"Predictions for the holdout {ROWS} by true grade (each dot is a {ROW}, moved by up to a quarter of a grade)"
    )
    return figure


def plot_confusion(evaluation: Evaluation) -> Figure:
    """Plot the confusion matrix of a model on the holdout."""
    figure, (axis,) = make_axes(1, 1, height=4.8, width=5.6)
    table = evaluation.predictions["holdout"]
    predictions = round_predictions(table["prediction"].to_numpy())
    ConfusionMatrixDisplay.from_predictions(
        table[TARGET], predictions, labels=list(GRADES), cmap="Reds", ax=axis, colorbar=False
    )
    axis.set(
        title=f"{evaluation.name}: holdout {ROWS} by true and predicted grade",
        xlabel="prediction",
        ylabel="true grade",
    )
    return figure


def plot_reliability(evaluation: Evaluation) -> Figure:
    """Plot how often a classifier's predictions are right against their confidence, in cross-validation."""
    figure, (axis,) = make_axes(1, 1, height=4.8, width=5.6)
    reliability = measure_reliability(evaluation.predictions["cv"])
    confidence = [each.confidence for each in reliability.bins]
    right = np.array([each.right for each in reliability.bins])
    low, high = np.array([each.interval for each in reliability.bins]).T
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="confidence = share right")
    style = {"fmt": "o", "markersize": 4, "color": RED, "elinewidth": 1.2, "capsize": 2}
    label = f"{len(reliability.bins)} bins of equally many {ROWS}, 95 % intervals"
    axis.errorbar(confidence, right, yerr=(right - low, high - right), label=label, **style)  # type: ignore[arg-type]
    title = f"{evaluation.name}: confidence and share of right predictions, leak-free cv (ECE {reliability.error:.3f})"
    axis.set(title=title, xlabel="confidence of the prediction", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axis.legend(loc="upper left", frameon=False, fontsize=8)
    return figure


def plot_copies(benchmark: CopyBenchmark) -> Figure:
    """Plot the RMSE of each model on the rows of a public copy and on distinct wines, one line per model."""
    figure, (axis,) = make_axes(1, 1, height=4.8, width=8)
    columns = ("copy", "distinct")
    best = benchmark.rank("distinct")[0]
    for side, column in enumerate(columns):
        ranked = benchmark.rank(column)
        values = {score.model: float(getattr(score, column)) for score in benchmark.scores}
        places = _spread([values[model] for model in ranked], least=0.006)
        for model, place in zip(ranked, places, strict=True):
            align, colour = "left" if side else "right", RED if model == best else "black"
            label, x = f"{model}  {values[model]:.3f}", side + (0.03 if side else -0.03)
            axis.text(x, place, label, ha=align, va="center", fontsize=9, color=colour)
    for score in benchmark.scores:
        colour = RED if score.model == best else GREY
        axis.plot([0, 1], [score.copy, score.distinct], color=colour, marker="o", markersize=4)
    labels = [f"{benchmark.rows:,} rows,\nsplit at random", f"{benchmark.wines:,} distinct {ROWS},\ngrouped folds"]
    axis.set_xticks([0, 1], labels)
    axis.set(
        xlim=(-0.7, 1.7),
        ylabel="RMSE, in grades",
        title=f"RMSE with repeated {ROWS}, and without",
    )
    axis.spines["bottom"].set_visible(False)
    axis.tick_params(axis="x", length=0)
    return figure


def _spread(values: Sequence[float], least: float) -> list[float]:
    """Ascending values, moved up to lie at least `least` apart, so that their labels do not overlap."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + least) if places else value)
    return places


def plot_importance(evaluation: Evaluation, split: Split, shuffles: int = SHUFFLES) -> Figure:
    """Plot a model's loss of R2 on the holdout when one feature is shuffled, several times per feature."""
    figure, (axis,) = make_axes(1, 1, height=4, width=7)
    drops = _permute_features(evaluation.pipeline, split.holdout, shuffles)
    order = drops.mean(axis=1).sort_values().index
    axis.boxplot(drops.loc[order].to_numpy().T, orientation="horizontal", tick_labels=list(order), widths=0.6)
    axis.axvline(0, color="black", linewidth=0.6)
    axis.set(title=f"{evaluation.name}: how much R2 falls if a feature is shuffled", xlabel="fall of R2 on the holdout")
    return figure


def plot_dependence(evaluation: Evaluation, split: Split, shuffles: int = SHUFFLES, points: int = POINTS) -> Figure:
    """Plot the partial dependence of the expected grade on each of the three most important features."""
    wines = feature_frame(split.holdout)
    top = list(_permute_features(evaluation.pipeline, split.holdout, shuffles).mean(axis=1).nlargest(3).index)
    figure, axes = make_axes(1, 3, height=3.2, width=10)
    PartialDependenceDisplay.from_estimator(
        evaluation.pipeline, wines, top, ax=axes, grid_resolution=points, line_kw={"color": RED}
    )
    for axis in axes:
        axis.set_ylabel("expected grade")
    figure.suptitle(f"{evaluation.name}: how the predicted grade changes with the three most important features")
    return figure


def plot_effects(effects: Mapping[str, Mapping[str, float]]) -> Figure:
    """Plot what each feature adds to the expected quality of some wines, one titled panel per wine."""
    figure, axes = make_axes(1, len(effects), height=3.8, width=5 * len(effects))
    widest = max(abs(effect) for wine in effects.values() for effect in wine.values()) or 1
    for axis, (title, wine) in zip(axes, effects.items(), strict=True):
        rows = pd.Series(wine).sort_values(key=abs)
        bars = axis.barh(rows.index, rows, color=np.where(rows > 0, RED, GREY))
        axis.bar_label(bars, fmt="{:+.2f}", padding=3, fontsize=8)
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set(title=title, xlabel="effect on the expected quality, in grades", xlim=(-1.35 * widest, 1.35 * widest))
    figure.suptitle("How much each feature adds to the expected quality, against its median")
    return figure


def plot_bars(values: Mapping[str, float], label: str, title: str) -> Figure:
    """Plot named values as bars, the first on top."""
    figure, (axis,) = make_axes(1, 1, height=0.3 * len(values) + 1.2, width=8)
    axis.barh(list(values), list(values.values()), color=RED)
    axis.set(xlabel=label, title=title)
    axis.invert_yaxis()
    return figure


def plot_comparison(evaluations: Sequence[Evaluation], split: Split) -> dict[str, Figure]:
    """Plot every figure for which these evaluations have the scores, by file name."""
    wines = pd.concat([split.train, split.holdout], ignore_index=True)
    figures = {
        "boxes": plot_boxes(wines),
        "correlations": plot_correlations(wines),
        "grades": plot_grades(wines),
    }
    if TYPES:
        figures["grades_by_type"] = plot_grades_by_type(wines)
    leak_free = [evaluation for evaluation in evaluations if evaluation.protocol == LEAK_FREE]
    regressors = [evaluation for evaluation in leak_free if not evaluation.classifies]
    if leak_free:
        figures["predictions"] = plot_predictions(leak_free)
    if leak_free and len(evaluations) > len(leak_free):
        figures["protocols"] = plot_protocols([score for each in evaluations for score in each.scores])
    if len(regressors) < len(leak_free):
        figures["confusion"] = plot_confusion(choose_classifier(leak_free))
        figures["reliability"] = plot_reliability(choose_classifier(leak_free))
    if regressors:
        best = min(regressors, key=lambda e: e.score_on("cv").metrics["rmse"])
        figures["importance"] = plot_importance(best, split)
        figures["dependence"] = plot_dependence(best, split)
    return figures


def _permute_features(pipeline: Pipeline, wines: pd.DataFrame, shuffles: int) -> pd.DataFrame:
    """The loss of R2 for each shuffle: features as rows, shuffles as columns."""
    result = permutation_importance(
        pipeline, feature_frame(wines), wines[TARGET], scoring="r2", n_repeats=shuffles, random_state=0
    )
    return pd.DataFrame(result.importances, index=pd.Index(FEATURES))
