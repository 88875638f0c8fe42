"""One trial: values in, a loss out, without MLflow.

The loss is the RMSE of the predicted number: XGBoost's number, or a forest's expected grade, corrected to infinitely
many trees. That number decides the grade, so a ranking of regressors also ranks the classifiers that are made of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.impute import SimpleImputer
from xgboost import XGBRegressor
from xgboost.callback import TrainingCallback

from experiment_tracking.search.space import FOREST, PUBLISHED, RANKING, Values, make_forest
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split, fold_wines
from wine_quality_training.evaluate import measure_predictions

SCORED, PRUNED, FAILED = "scored", "pruned", "failed"
TRIAL_TREES = 15
STOPPING_PARTS = 6  # one of these parts decides when XGBoost stops
FEWEST_TO_COMPARE = 3  # with fewer, a median is not reliable
FOLDS_BEFORE_STOPPING = 2


class StoppedError(Exception):
    """The search was stopped while this trial ran."""


@dataclass(frozen=True)
class Fold:
    """The wines of one fold as arrays (X, y), to fit on, to stop by and to score; and the seed of its model.

    `booster` has XGBoost's parameters besides a trial's values.
    """

    fit: tuple[np.ndarray, np.ndarray]
    stop: tuple[np.ndarray, np.ndarray]
    score: tuple[np.ndarray, np.ndarray]
    seed: int
    booster: Mapping[str, Any] = field(default_factory=lambda: RANKING)


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial; the optimiser gets `loss`, which a failed trial does not have.

    `fold_losses` has the loss of each scored fold, `rounds` the number of XGBoost's rounds in each.
    """

    outcome: str
    loss: float | None = None
    fold_losses: tuple[float, ...] = ()
    rounds: tuple[int, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Trial:
    """A finished trial."""

    number: int
    family: str
    values: Values
    result: TrialResult


def prepare_folds(split: Split, seed: int) -> list[Fold]:
    """Prepare the folds of train and fill blank cells; XGBoost stops by a sixth of each fit part, cut by group."""
    folds, wines = [], split.train
    for fit_on, score_on in split.folds:
        rest, stop_by = fold_wines(wines.iloc[fit_on].reset_index(drop=True), STOPPING_PARTS, seed)[0]
        imputer = SimpleImputer(strategy="mean").fit(feature_frame(wines.iloc[fit_on]))
        fit, stop, score = (
            (imputer.transform(feature_frame(wines.iloc[part])), wines[TARGET].iloc[part].to_numpy())
            for part in (fit_on[rest], fit_on[stop_by], score_on)
        )
        folds.append(Fold(fit, stop, score, seed))
    return folds


def prepare_published(data: WineData, seed: int) -> list[Fold]:
    """Prepare the published objective: the validation file is used to stop and to score; blank cells stay blank."""
    train, validation = (
        (feature_frame(wines).to_numpy(), wines[TARGET].to_numpy()) for wines in (data.train, data.validation)
    )
    return [Fold(train, validation, validation, seed, PUBLISHED)]


def run_trial(
    folds: Sequence[Fold],
    family: str,
    values: Values,
    earlier: Sequence[TrialResult],
    is_stopped: Callable[[], bool] = lambda: False,
) -> TrialResult:
    """Fit and score one fold after the other on one core, until the trial is pruned.

    `earlier` has the family's results from earlier batches only, so that the order in which the trials of this batch
    end does not matter. `is_stopped` is called between folds and between rounds; if true, StoppedError is raised.
    """
    predictions: list[np.ndarray] = []
    losses: list[float] = []
    rounds: list[int] = []
    for fold in folds:
        model = _fit(family, values, fold, is_stopped)
        if is_stopped():
            raise StoppedError
        numbers, excess = _predict(model, fold.score[0])
        predictions.append(numbers)
        losses.append(float(np.sqrt(np.mean((numbers - fold.score[1]) ** 2) - excess)))
        rounds += [model.best_iteration + 1] if isinstance(model, XGBRegressor) else []
        if len(losses) < len(folds) and should_prune(losses, earlier):
            break
    outcome, loss = SCORED, float(np.mean(losses))
    if len(losses) < len(folds):  # estimated: as far above the median over all folds as over the first ones
        outcome = PRUNED
        loss = loss - _find_median(len(losses), earlier) + _find_median(len(folds), earlier)
    grades = np.concatenate([fold.score[1] for fold in folds[: len(losses)]])
    metrics = measure_predictions(grades, np.concatenate(predictions))
    return TrialResult(outcome, loss, tuple(losses), tuple(rounds), metrics)


def should_prune(losses: Sequence[float], earlier: Sequence[TrialResult]) -> bool:
    """Whether a trial's loss on its first folds is above the median of the earlier trials on the same folds."""
    return len(losses) >= FOLDS_BEFORE_STOPPING and float(np.mean(losses)) > _find_median(len(losses), earlier)


def choose_best(trials: Sequence[Trial], family: str) -> Trial | None:
    """The trial of a family with the lowest loss over all folds; None if no trial was scored on all folds."""
    scored = [trial for trial in trials if trial.family == family and trial.result.outcome == SCORED]
    return min(scored, key=lambda trial: (trial.result.loss, trial.number), default=None)


def _find_median(folds: int, earlier: Sequence[TrialResult]) -> float:
    """The median of the mean losses over the first folds; infinite with too few results."""
    means = [np.mean(result.fold_losses[:folds]) for result in earlier if result.outcome == SCORED]
    return float(np.median(means)) if len(means) >= FEWEST_TO_COMPARE else np.inf


def _fit(family: str, values: Values, fold: Fold, is_stopped: Callable[[], bool]) -> BaseEstimator:
    """Fit on one core, because the trials of a batch run in parallel. A forest is also fitted on the stopping part."""
    if family == FOREST:
        X, y = (np.concatenate(both) for both in zip(fold.fit, fold.stop, strict=True))
        return make_forest(values, fold.seed, TRIAL_TREES, cores=1).fit(X, y)
    return _fit_booster(values, fold, [_StopWhen(is_stopped)])


def _predict(model: BaseEstimator, X: np.ndarray) -> tuple[np.ndarray, float]:
    """The predicted numbers, and how much infinitely many trees would lower their mean squared error.

    That is the variance of the trees' mean. Without this correction, the noise of few trees hides which values are
    better. Over 16 forests of the published wines, the losses of 30 trees had a rank correlation of .51 with those of
    120 others; corrected, .93. Over 16 more, the corrected losses had .88 with 20 trees, .95 with 15, and with 10 trees
    .91 for one seed and .66 for another.
    """
    if isinstance(model, XGBRegressor):
        return model.predict(X), 0.0
    trees = np.array([tree.predict_proba(X) @ model.classes_ for tree in model.estimators_])
    return trees.mean(axis=0), float(trees.var(axis=0, ddof=1).mean() / len(trees))


def _fit_booster(values: Values, fold: Fold, callbacks: Sequence[TrainingCallback] = ()) -> XGBRegressor:
    model = XGBRegressor(**fold.booster, **values, random_state=fold.seed, n_jobs=1, callbacks=list(callbacks))
    return model.fit(*fold.fit, eval_set=[fold.stop], verbose=False)


class _StopWhen(TrainingCallback):
    """Ends XGBoost's rounds when the search is stopped, because a fit of the published objective takes a minute."""

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        super().__init__()
        self._is_stopped = is_stopped

    def after_iteration(self, model: object, epoch: int, evals_log: object) -> bool:  # noqa: ARG002
        return self._is_stopped()
