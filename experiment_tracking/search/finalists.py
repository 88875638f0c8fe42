"""The finalists of a search: the best of each family, a blend, and a default forest to compare them with.

They are compared by their probabilities for wines that they were not fitted on, on repeated grouped cross-validation
of train. Each member is fitted once a part; a blend's probabilities are the mean of its members'. The rule that decides
the grades of one part is chosen on the other parts of its repeat: a wine has no say in its own grade, and nothing is
fitted four times, as inside OrdinalClassifier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.table import Table
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline

from executors import MapFunction
from wine_data.schema import GRADES, TARGET, feature_frame
from wine_data.split import Split, fold_wines, group_wines
from wine_quality_training.bundle.decision import decide_grades
from wine_quality_training.coverage import bin_predictions
from wine_quality_training.estimators import blend_grades, choose_rule, make_kernel_grades
from wine_quality_training.evaluate import (
    MEASURES,
    bound_difference,
    measure_predictions,
    score_probabilities,
    spread_probabilities,
)
from wine_quality_training.models import impute_before, make_model

REPEATS, PARTS = 2, 3  # what counts are differences; these six fits take half the time of ten on five parts
DEFAULT = "ExtraTreesClassifier"
TUNED_XGB, TUNED_FOREST, KERNEL, BLEND = "TunedXGB", "TunedForest", "Kernel", "Blend"
RPS, ECE = "rps", "ece"
COLUMNS = {"rmse": "RMSE", "r2": "R2", "accuracy": "accuracy", "kappa": "kappa", RPS: "RPS", ECE: "ECE"}
SCALE = np.array(GRADES, dtype=float)

Fold = tuple[int, np.ndarray, np.ndarray]  # repeat, rows to fit on, rows to score


@dataclass(frozen=True)
class Finalist:
    """An unfitted classifier, its mean measures over the repeats, and its expected grades, shape (repeats, wines).

    RMSE, MAE and R2 are of the expected grade, the rest of the grade that is decided by it.
    """

    name: str
    model: BaseEstimator
    metrics: dict[str, float]
    expected: np.ndarray


def make_finalists(tuned: Mapping[str, BaseEstimator], seed: int, kernel: bool = True) -> dict[str, BaseEstimator]:
    """The classifiers to compare, unfitted and by name; `tuned` has those of TUNED_XGB and TUNED_FOREST there are.

    `kernel` is whether there is the kernel, and so a blend.
    """
    models = {DEFAULT: make_model(DEFAULT, seed).named_steps["model"], **tuned}
    if kernel and TUNED_FOREST in tuned:
        models |= {KERNEL: make_kernel_grades(), BLEND: blend_grades(tuned[TUNED_FOREST])}
    return models


def repeat_folds(split: Split, seed: int, repeats: int = REPEATS, parts: int = PARTS) -> list[Fold]:
    """Cut train into parts several times: (repeat, rows to fit on, rows to score)."""
    return [
        (repeat, fit_on, score_on)
        for repeat in range(repeats)
        for fit_on, score_on in fold_wines(split.train, parts, seed + 1 + repeat)
    ]


def compare_finalists(
    models: Mapping[str, BaseEstimator], split: Split, folds: Sequence[Fold], map_fn: MapFunction = map
) -> list[Finalist]:
    """Score each on repeated grouped cross-validation of train, in the order given; `map_fn` runs the fits."""
    members = {name: impute_before(model) for name, model in models.items() if name != BLEND}
    probabilities = _predict_folds(members, split, folds, map_fn)
    if BLEND in models:
        probabilities[BLEND] = (probabilities[TUNED_FOREST] + probabilities[KERNEL]) / 2
    grades = split.train[TARGET].to_numpy()
    return [_measure_finalist(name, model, probabilities[name], grades, folds) for name, model in models.items()]


def choose_winner(finalists: Sequence[Finalist], split: Split) -> Finalist:
    """The tuned forest, or of those whose RMSE is certainly lower than the forest's the one with the lowest.

    Certain is what the one-sided 95 % interval of the paired difference says, as for the gate. Where no forest was
    scored, XGBoost wins.
    """
    tuned = {each.name: each for each in finalists if each.name in (TUNED_FOREST, TUNED_XGB, BLEND)}
    if TUNED_FOREST not in tuned:
        return tuned[TUNED_XGB]
    forest = tuned.pop(TUNED_FOREST)
    repeats = len(forest.expected)
    grades, wines = (np.tile(column, repeats) for column in (split.train[TARGET], group_wines(split.train)))
    numbers = forest.expected.ravel()
    better = [
        each
        for each in tuned.values()
        if bound_difference(grades, each.expected.ravel(), numbers, "rmse", wines)[1] < 0
    ]
    return min(better, key=lambda each: each.metrics["rmse"], default=forest)


def tabulate_finalists(finalists: Sequence[Finalist]) -> Table:
    """The measures of the finalists, and the ratio of RMSE to that of the first, the default."""
    table = Table("model", box=None, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    table.title = f"\nFinalists on repeated grouped cv of train ({REPEATS} x {PARTS} folds)"
    for heading in (*COLUMNS.values(), "RMSE ratio"):
        table.add_column(heading, justify="right")
    for finalist in finalists:
        values = [f"{finalist.metrics[name]:.4f}" for name in COLUMNS]
        table.add_row(finalist.name, *values, f"{finalist.metrics['rmse'] / finalists[0].metrics['rmse']:.3f}")
    return table


def _predict_folds(
    models: Mapping[str, Pipeline], split: Split, folds: Sequence[Fold], map_fn: MapFunction
) -> dict[str, np.ndarray]:
    """The probabilities of GRADES that each model gives the wines it was not fitted on: (repeats, wines, grades)."""
    X, y = feature_frame(split.train), split.train[TARGET].to_numpy()
    repeats = 1 + max(repeat for repeat, _, _ in folds)
    pieces = [(name, *fold) for fold in folds for name in models]
    predicted = map_fn(
        _fit_and_predict,
        [models[name] for name, _, _, _ in pieces],
        [X.iloc[fit_on] for _, _, fit_on, _ in pieces],
        [y[fit_on] for _, _, fit_on, _ in pieces],
        [X.iloc[score_on] for _, _, _, score_on in pieces],
    )
    probabilities = {name: np.empty((repeats, len(y), len(GRADES))) for name in models}
    for (name, repeat, _, score_on), part in zip(pieces, predicted, strict=True):
        probabilities[name][repeat, score_on] = part
    return probabilities


def _fit_and_predict(model: Pipeline, X: pd.DataFrame, y: np.ndarray, scored: pd.DataFrame) -> np.ndarray:
    return spread_probabilities(clone(model).fit(X, y), scored, GRADES)


def _measure_finalist(
    name: str, model: BaseEstimator, probabilities: np.ndarray, grades: np.ndarray, folds: Sequence[Fold]
) -> Finalist:
    decided = np.empty(probabilities.shape[:2], dtype=int)
    for repeat, others, part in folds:
        bounds = None
        if name != DEFAULT:
            bounds = choose_rule(probabilities[repeat, others], SCALE, grades[others]).find_bounds(SCALE)
        decided[repeat, part], _ = decide_grades(probabilities[repeat, part], SCALE, bounds)
    expected = probabilities @ SCALE
    measured = [
        _measure_repeat(probabilities[repeat], expected[repeat], decided[repeat], grades)
        for repeat in range(len(decided))
    ]
    metrics = {measure: float(np.mean([each[measure] for each in measured])) for measure in measured[0]}
    return Finalist(name, model, metrics, expected)


def _measure_repeat(
    probabilities: np.ndarray, expected: np.ndarray, decided: np.ndarray, grades: np.ndarray
) -> dict[str, float]:
    predictions, numbers = SCALE[decided], measure_predictions(grades, expected)
    confidence = probabilities[np.arange(len(grades)), decided]
    return (
        measure_predictions(grades, predictions)
        | {measure: numbers[measure] for measure in MEASURES[:3]}
        | {RPS: float(score_probabilities(grades, probabilities.cumsum(axis=1)).mean())}
        | {ECE: bin_predictions(confidence, predictions == grades).error}
    )
