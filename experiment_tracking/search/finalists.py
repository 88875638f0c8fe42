"""The finalists of a search: the best of each family, a blend, and a default forest to compare them with.

They are compared by their out-of-fold probabilities, on folds of train that the trials did not use. Each member is
fitted once per fold; a blend's probabilities are the mean of its members'. The rule that decides the grades of one fold
is chosen on the other folds. So a wine does not influence its own grade, and no model is fitted four times, as inside
OrdinalClassifier. The default and the kernel need no trial; they are fitted while the search starts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.table import Table
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from executors import MapFunction, open_executor
from experiment_tracking.search.space import Plan
from wine_data.schema import GRADES, TARGET, feature_frame
from wine_data.split import Split, fold_wines, group_wines
from wine_quality_training.bundle.decision import DecisionRule, decide_grades
from wine_quality_training.coverage import bin_predictions
from wine_quality_training.estimators import KERNEL_WINES, blend_grades, choose_rule, make_kernel_grades
from wine_quality_training.evaluate import (
    LEAK_FREE,
    MEASURES,
    bound_difference,
    measure_predictions,
    score_probabilities,
    spread_probabilities,
)
from wine_quality_training.models import impute_before, make_model

DEFAULT = "ExtraTreesClassifier"
TUNED_XGB, TUNED_FOREST, KERNEL, BLEND = "TunedXGB", "TunedForest", "Kernel", "Blend"
RPS, ECE = "rps", "ece"
COLUMNS = {"rmse": "RMSE", "r2": "R2", "accuracy": "accuracy", "kappa": "kappa", RPS: "RPS", ECE: "ECE"}
SCALE = np.array(GRADES, dtype=float)

Fold = tuple[np.ndarray, np.ndarray]  # rows to fit on, rows to score
Fits = dict[str, Iterable[np.ndarray]]  # by model, an iterator over the probabilities of each fold


@dataclass(frozen=True)
class Finalist:
    """An unfitted classifier, its measures, and its out-of-fold predictions for the wines of train.

    `probabilities` has shape (wines, grades). `decided` has positions in GRADES, by rules of other folds. `rule` is the
    rule of all folds, None for the default. RMSE, MAE and R2 are of the expected grade, the rest of the decided one.
    """

    name: str
    model: BaseEstimator
    metrics: dict[str, float]
    probabilities: np.ndarray
    decided: np.ndarray
    rule: DecisionRule | None

    @property
    def expected(self) -> np.ndarray:
        """The expected grade of each wine."""
        numbers: np.ndarray = self.probabilities @ SCALE
        return numbers


@dataclass(frozen=True)
class FitRunner:
    """The executor of a search's fits, the folds for comparing finalists, and the fits that have begun.

    `untuned` has the finalists that need no trial.
    """

    executor: Executor
    folds: Sequence[Fold]
    untuned: dict[str, BaseEstimator]
    fits: Fits


@contextmanager
def open_runner(plan: Plan, split: Split) -> Iterator[FitRunner]:
    """Open the plan's executor, and begin the fits that need no trial."""
    # The executor's threads already use the cores. With BLAS's own threads, the kernel's fits took four times as long
    # on a busy machine, because the threads wait for each other.
    with open_executor(plan.workers, plan.dask) as executor, threadpool_limits(1, "blas"):
        folds = cut_fresh_folds(split, plan.seed)
        untuned = make_untuned(split, plan.seed) if plan.protocol == LEAK_FREE else {}
        yield FitRunner(executor, folds, untuned, begin_fits(untuned, split, folds, executor.map))


def cut_fresh_folds(split: Split, seed: int) -> list[Fold]:
    """As many folds as the search uses, drawn again, so that tuned models have no advantage over untuned ones."""
    return fold_wines(split.train, len(split.folds), seed + 1)


def make_untuned(split: Split, seed: int) -> dict[str, BaseEstimator]:
    """The finalists that need no trial, unfitted; without the kernel if train has too many wines for it.

    The kernel comes first: its fits leave Python free for the search's imports, while a forest's fits wait for Python.
    """
    kernel = {KERNEL: make_kernel_grades()} if len(split.train) <= KERNEL_WINES else {}
    return kernel | {DEFAULT: make_model(DEFAULT, seed).named_steps["model"]}


def make_finalists(
    untuned: Mapping[str, BaseEstimator], tuned: Mapping[str, BaseEstimator]
) -> dict[str, BaseEstimator]:
    """All classifiers to compare, unfitted; `tuned` may have TUNED_XGB and TUNED_FOREST."""
    models = {DEFAULT: untuned[DEFAULT], **tuned, **untuned}
    return models | {BLEND: blend_grades(tuned[TUNED_FOREST])} if {KERNEL, TUNED_FOREST} <= models.keys() else models


def begin_fits(
    models: Mapping[str, BaseEstimator], split: Split, folds: Sequence[Fold], map_fn: MapFunction = map
) -> Fits:
    """Begin to fit each model on each fold, except the blend, which needs only its members; `map_fn` runs the fits."""
    X, y = feature_frame(split.train), split.train[TARGET].to_numpy()
    pieces = [(X.iloc[others], y[others], X.iloc[part]) for others, part in folds]
    return {
        name: map_fn(_fit_and_predict, [impute_before(model)] * len(folds), *zip(*pieces, strict=True))
        for name, model in models.items()
        if name != BLEND
    }


def compare_finalists(
    models: Mapping[str, BaseEstimator], fits: Fits, split: Split, folds: Sequence[Fold]
) -> list[Finalist]:
    """Wait for the fits of the models, and score each, in the given order."""
    probabilities = {name: np.zeros((len(split.train), len(GRADES))) for name in models}
    for name in models.keys() - {BLEND}:
        for (_, part), predicted in zip(folds, fits[name], strict=True):
            probabilities[name][part] = predicted
    if BLEND in models:
        probabilities[BLEND] = (probabilities[TUNED_FOREST] + probabilities[KERNEL]) / 2
    grades = split.train[TARGET].to_numpy()
    return [_measure_finalist(name, model, probabilities[name], grades, folds) for name, model in models.items()]


def choose_winner(finalists: Sequence[Finalist], split: Split) -> Finalist:
    """The tuned forest, or the finalist with the lowest RMSE among those significantly better than the forest.

    Significant: the 95 % interval of the paired difference lies below 0. If no forest was scored, XGBoost wins.
    """
    tuned = {each.name: each for each in finalists if each.name in (TUNED_FOREST, TUNED_XGB, BLEND)}
    if TUNED_FOREST not in tuned:
        return tuned[TUNED_XGB]
    forest = tuned.pop(TUNED_FOREST)
    grades, wines = split.train[TARGET].to_numpy(), group_wines(split.train).to_numpy()
    better = [
        each
        for each in tuned.values()
        if bound_difference(grades, each.expected, forest.expected, "rmse", wines)[1] < 0
    ]
    return min(better, key=lambda each: each.metrics["rmse"], default=forest)


def tabulate_finalists(finalists: Sequence[Finalist]) -> Table:
    """The measures of the finalists, and their RMSE as a ratio to that of the first, the default."""
    table = Table("model", box=None, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    table.title = "\nFinalists on grouped cv of train, on folds that the trials did not use"
    for heading in (*COLUMNS.values(), "RMSE ratio"):
        table.add_column(heading, justify="right")
    for finalist in finalists:
        values = [f"{finalist.metrics[name]:.4f}" for name in COLUMNS]
        table.add_row(finalist.name, *values, f"{finalist.metrics['rmse'] / finalists[0].metrics['rmse']:.3f}")
    return table


def _fit_and_predict(model: Pipeline, X: pd.DataFrame, y: np.ndarray, scored: pd.DataFrame) -> np.ndarray:
    return spread_probabilities(clone(model).fit(X, y), scored, GRADES)


def _measure_finalist(
    name: str, model: BaseEstimator, probabilities: np.ndarray, grades: np.ndarray, folds: Sequence[Fold]
) -> Finalist:
    def choose(rows: np.ndarray | slice) -> DecisionRule | None:
        return None if name == DEFAULT else choose_rule(probabilities[rows], SCALE, grades[rows], smooth=True)

    decided = np.zeros(len(grades), dtype=int)
    for others, part in folds:
        rule = choose(others)
        decided[part], _ = decide_grades(probabilities[part], SCALE, rule.find_bounds(SCALE) if rule else None)
    predictions, numbers = SCALE[decided], measure_predictions(grades, probabilities @ SCALE)
    confidence = probabilities[np.arange(len(grades)), decided]
    metrics = (
        measure_predictions(grades, predictions)
        | {measure: numbers[measure] for measure in MEASURES[:3]}
        | {RPS: float(score_probabilities(grades, probabilities.cumsum(axis=1)).mean())}
        | {ECE: bin_predictions(confidence, predictions == grades).error}
    )
    return Finalist(name, model, metrics, probabilities, decided, choose(slice(None)))
