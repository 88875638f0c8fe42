"""The end of a search: the best of each family and their blend, beside the forest that scikit-learn starts with.

They are compared on repeated grouped cross-validation of the training side, on other folds than the
search was tuned on. The holdout has no say in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.table import Table
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from xgboost import XGBRegressor

from executors import Spread
from experiment_tracking.search_loop import Trial, choose_best
from experiment_tracking.search_space import CLASSIFIER, FOREST, REGRESSOR, XGBOOST, Study, make_finalist
from experiment_tracking.trial import measure_loss
from wine_data.schema import TARGET, feature_frame
from wine_data.split import Sides, fold_wines
from wine_quality_training.estimators import GradesFromNumbers, blend_classifiers, blend_regressors
from wine_quality_training.evaluate import MEASURES, measure_guesses
from wine_quality_training.models import impute_before, make_model
from wine_quality_training.report import HEADINGS

REPEATS, PARTS = 2, 3  # what counts are differences; these six fits take half the time of ten on five parts
DEFAULTS = {REGRESSOR: "RandomForestRegressor", CLASSIFIER: "RandomForestClassifier"}
NAMES = {
    (REGRESSOR, XGBOOST): "TunedXGBRegressor",
    (REGRESSOR, FOREST): "TunedForestRegressor",
    (CLASSIFIER, XGBOOST): "TunedXGBClassifier",
    (CLASSIFIER, FOREST): "TunedForestClassifier",
}
BLENDS = {REGRESSOR: "BlendRegressor", CLASSIFIER: "BlendClassifier"}


@dataclass(frozen=True)
class Finalist:
    """An unfitted model with its mean measures and loss over the repeats."""

    name: str
    pipeline: Pipeline
    metrics: dict[str, float]
    loss: float


def make_finalists(task: str, trials: Sequence[Trial], seed: int) -> dict[str, Pipeline]:
    """The default forest, the best of each family, and the blend where there is one of both; all unfitted."""
    models = {DEFAULTS[task]: make_model(DEFAULTS[task], seed)}
    best = {family: choose_best(trials, Study(task, family)) for family in (XGBOOST, FOREST)}
    made = {family: make_best(trial, seed) for family, trial in best.items() if trial}
    for family, model in made.items():
        numbers = task == CLASSIFIER and family == XGBOOST
        models[NAMES[task, family]] = impute_before(GradesFromNumbers(model) if numbers else model)
    if len(made) == 2:
        parts = made[XGBOOST], made[FOREST]
        blend = blend_regressors(*parts) if task == REGRESSOR else blend_classifiers(*parts, seed)
        models[BLENDS[task]] = impute_before(blend)
    return models


def make_best(trial: Trial, seed: int) -> BaseEstimator:
    """The unfitted model of a trial: XGBoost with the median of the rounds that its folds were stopped at."""
    rounds = int(np.median(trial.result.rounds)) if trial.result.rounds else 0
    return make_finalist(trial.study, trial.values, rounds, seed)


def compare_finalists(
    task: str,
    models: Mapping[str, Pipeline],
    sides: Sides,
    seed: int,
    spread: Spread = map,
    repeats: int = REPEATS,
    parts: int = PARTS,
) -> list[Finalist]:
    """Score each on repeated grouped cross-validation of the training side, in the order given.

    `spread` runs the fits, here or elsewhere.
    """
    X, y = feature_frame(sides.training), sides.training[TARGET].to_numpy()
    pieces = [
        (name, repeat, fit_on, score_on)
        for repeat in range(repeats)
        for fit_on, score_on in fold_wines(sides.training, parts, seed + 1 + repeat)
        for name in models
    ]
    guessed = spread(
        _fit_and_guess,
        [models[name] for name, _, _, _ in pieces],
        [X.iloc[fit_on] for _, _, fit_on, _ in pieces],
        [y[fit_on] for _, _, fit_on, _ in pieces],
        [X.iloc[score_on] for _, _, _, score_on in pieces],
    )
    guesses = {name: np.empty((repeats, len(y))) for name in models}
    for (name, repeat, _, score_on), guess in zip(pieces, guessed, strict=True):
        guesses[name][repeat, score_on] = guess
    return [_measure(task, name, model, y, guesses[name]) for name, model in models.items()]


def choose_winner(finalists: Sequence[Finalist]) -> Finalist:
    """The finalist with the lowest loss."""
    return min(finalists, key=lambda finalist: finalist.loss)


def tabulate_finalists(task: str, finalists: Sequence[Finalist]) -> Table:
    """The measures of the finalists, and the ratio of the task's measure to that of the first, the default."""
    measure = "rmse" if task == REGRESSOR else "accuracy"
    table = Table("model", box=None, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    table.title = f"\n{task}s on repeated grouped cv of the training side ({REPEATS} x {PARTS} folds)"
    for heading in ("RMSE", "R2", "accuracy", "kappa", f"{HEADINGS[measure]} ratio"):
        table.add_column(heading, justify="right")
    for finalist in finalists:
        values = [f"{finalist.metrics[name]:.4f}" for name in ("rmse", "r2", "accuracy", "kappa")]
        table.add_row(finalist.name, *values, f"{finalist.metrics[measure] / finalists[0].metrics[measure]:.3f}")
    return table


def trace_final_fit(model: XGBRegressor, sides: Sides) -> list[float]:
    """The RMSE on the training side after each round of the best XGBoost's fit on all of it."""
    X, y = feature_frame(sides.training), sides.training[TARGET]
    fitted = clone(model).fit(X, y, eval_set=[(X, y)], verbose=False)
    return list(fitted.evals_result()["validation_0"]["rmse"])


def _fit_and_guess(model: Pipeline, X: pd.DataFrame, y: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    guesses: np.ndarray = clone(model).fit(X, y).predict(table)
    return guesses


def _measure(task: str, name: str, model: Pipeline, grades: np.ndarray, guesses: np.ndarray) -> Finalist:
    measures = [measure_guesses(grades, repeat) for repeat in guesses]
    metrics = {measure: float(np.mean([one[measure] for one in measures])) for measure in MEASURES}
    loss = float(np.mean([measure_loss(task, grades, repeat) for repeat in guesses]))
    return Finalist(name, model, metrics, loss)
