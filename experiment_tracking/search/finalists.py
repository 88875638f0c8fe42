"""The end of a search: the best of each family and their blend, beside the forest that scikit-learn starts with.

They are compared on repeated grouped cross-validation of train, on other folds than the
search was tuned on. The holdout has no say in it. The winner gets a run of its own, for which the holdout is
opened once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from xgboost import XGBRegressor

from executors import MapFunction
from experiment_tracking.runs.tracking import TrackedModel, log_values, track_model
from experiment_tracking.search.figures import plot_search
from experiment_tracking.search.ledger import Ledger
from experiment_tracking.search.loop import Trial, choose_best
from experiment_tracking.search.space import CLASSIFIER, FOREST, REGRESSOR, TASKS, XGBOOST, Study, make_finalist
from experiment_tracking.search.trial import measure_loss
from wine_data.schema import TARGET, feature_frame
from wine_data.split import Split, fold_wines
from wine_quality_training.estimators import GradesFromNumbers, blend_classifiers, blend_regressors
from wine_quality_training.evaluate import (
    MEASURES,
    Evaluation,
    evaluate_as_published,
    evaluate_leak_free,
    measure_predictions,
)
from wine_quality_training.models import impute_before, make_model, predicts_grades
from wine_quality_training.report import HEADINGS, list_scores, render_scores, tabulate_scores

REPEATS, PARTS = 2, 3  # what counts are differences; these six fits take half the time of ten on five parts
DEFAULTS = {REGRESSOR: "RandomForestRegressor", CLASSIFIER: "RandomForestClassifier"}
NAMES = {
    (REGRESSOR, XGBOOST): "TunedXGBRegressor",
    (REGRESSOR, FOREST): "TunedForestRegressor",
    (CLASSIFIER, XGBOOST): "TunedXGBClassifier",
    (CLASSIFIER, FOREST): "TunedForestClassifier",
}
PUBLISHED = "PublishedXGBRegressor"
BLENDS = {REGRESSOR: "BlendRegressor", CLASSIFIER: "BlendClassifier"}

Fold = tuple[int, np.ndarray, np.ndarray]  # repeat, rows to fit on, rows to score


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


def repeat_folds(split: Split, seed: int, repeats: int = REPEATS, parts: int = PARTS) -> list[Fold]:
    """Cut train into parts several times: (repeat, rows to fit on, rows to score)."""
    return [
        (repeat, fit_on, score_on)
        for repeat in range(repeats)
        for fit_on, score_on in fold_wines(split.train, parts, seed + 1 + repeat)
    ]


def compare_finalists(
    task: str, models: Mapping[str, Pipeline], split: Split, folds: Sequence[Fold], map_fn: MapFunction = map
) -> list[Finalist]:
    """Score each on repeated grouped cross-validation of train, in the order given.

    `map_fn` runs the fits, here or elsewhere.
    """
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
    predictions = {name: np.empty((repeats, len(y))) for name in models}
    for (name, repeat, _, score_on), prediction in zip(pieces, predicted, strict=True):
        predictions[name][repeat, score_on] = prediction
    return [_measure(task, name, model, y, predictions[name]) for name, model in models.items()]


def choose_winner(finalists: Sequence[Finalist]) -> Finalist:
    """The finalist with the lowest loss."""
    return min(finalists, key=lambda finalist: finalist.loss)


def tabulate_finalists(task: str, finalists: Sequence[Finalist]) -> Table:
    """The measures of the finalists, and the ratio of the task's measure to that of the first, the default."""
    measure = "rmse" if task == REGRESSOR else "accuracy"
    table = Table("model", box=None, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    table.title = f"\n{task}s on repeated grouped cv of train ({REPEATS} x {PARTS} folds)"
    for heading in ("RMSE", "R2", "accuracy", "kappa", f"{HEADINGS[measure]} ratio"):
        table.add_column(heading, justify="right")
    for finalist in finalists:
        values = [f"{finalist.metrics[name]:.4f}" for name in ("rmse", "r2", "accuracy", "kappa")]
        table.add_row(finalist.name, *values, f"{finalist.metrics[measure] / finalists[0].metrics[measure]:.3f}")
    return table


def trace_final_fit(model: XGBRegressor, split: Split) -> list[float]:
    """The RMSE in train after each round of the best XGBoost's fit on all of it."""
    X, y = feature_frame(split.train), split.train[TARGET]
    fitted = clone(model).fit(X, y, eval_set=[(X, y)], verbose=False)
    return list(fitted.evals_result()["validation_0"]["rmse"])


def _fit_and_predict(model: Pipeline, X: pd.DataFrame, y: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    predictions: np.ndarray = clone(model).fit(X, y).predict(table)
    return predictions


def _measure(task: str, name: str, model: Pipeline, grades: np.ndarray, predictions: np.ndarray) -> Finalist:
    measures = [measure_predictions(grades, repeat) for repeat in predictions]
    metrics = {measure: float(np.mean([one[measure] for one in measures])) for measure in MEASURES}
    loss = float(np.mean([measure_loss(task, grades, repeat) for repeat in predictions]))
    return Finalist(name, model, metrics, loss)


@dataclass(frozen=True)
class SearchEnd:
    """What follows the trials of a search: what it works on, where it is logged and printed, what runs its fits."""

    split: Split
    seed: int
    ledger: Ledger
    console: Console
    map_fn: MapFunction = map

    def log_trials(self, trials: Sequence[Trial]) -> None:
        """Log figures, the best values of each study and the rounds of the best XGBoost's fit on the parent run."""
        client, parent_id = mlflow.MlflowClient(), self.ledger.parent_id
        studies = list(dict.fromkeys(trial.study for trial in trials))
        for name, figure in plot_search(trials, studies).items():
            client.log_figure(parent_id, figure, f"figures/{name}.png")
        for study in studies:
            best = choose_best(trials, study)
            if best is None or best.result.loss is None:
                continue
            prefix = f"best.{study.task}.{study.family}"
            values = {f"{prefix}.{name}": value for name, value in best.values.items()}
            series = {}
            if study.family == XGBOOST:
                series = {f"{prefix}.final_fit.rmse": trace_final_fit(make_best(best, self.seed), self.split)}
            log_values(
                parent_id, values | {f"{prefix}.trial": best.number}, {f"{prefix}.loss": best.result.loss}, series
            )

    def finish_leak_free(self, trials: Sequence[Trial]) -> tuple[list[Evaluation], list[TrackedModel]]:
        """Choose a winner for each task, then open the holdout for the winners, and track them."""
        tasks = [task for task in TASKS if any(trial.study.task == task for trial in trials)]
        winners = [self._choose_winner(task, trials) for task in tasks]
        evaluations = [
            evaluate_leak_free(winner.name, winner.pipeline, self.split, map_fn=self.map_fn) for winner in winners
        ]
        tracked = [self._track([evaluation]) for evaluation in evaluations]
        self._show(evaluations)
        for winner, model in zip(winners, tracked, strict=True):
            if predicts_grades(winner.pipeline):
                command = f"python -m experiment_tracking.registry register {model.run_id}"
                self.console.print(f"Next: make {model.name} a version, {command}")
            else:
                shown = f"make mlflow shows {model.name}"
                self.console.print(f"Next: {shown}; the API serves classifiers: --task classifier")
        return evaluations, tracked

    def finish_published(self, trials: Sequence[Trial]) -> tuple[list[Evaluation], list[TrackedModel]]:
        """Score the published search's best values under both protocols, to show what its objective is worth."""
        best = choose_best(trials, Study(REGRESSOR, XGBOOST))
        assert best is not None
        pipeline = impute_before(make_best(best, self.seed))
        evaluations = [
            evaluate_as_published(PUBLISHED, pipeline, self.ledger.data, self.map_fn),
            evaluate_leak_free(PUBLISHED, pipeline, self.split, map_fn=self.map_fn),
        ]
        tracked = [self._track(evaluations)]
        self._show(evaluations)
        published, leak_free = evaluations[0].score_on("validation"), evaluations[1].score_on("holdout")
        self.console.print(
            f"\nRMSE {published.metrics['rmse']:.3f} on the validation file, {leak_free.metrics['rmse']:.3f} on wines "
            "it has not seen: this search tunes to memory.\nNext: python -m experiment_tracking.search"
        )
        return evaluations, tracked

    def _choose_winner(self, task: str, trials: Sequence[Trial]) -> Finalist:
        folds = repeat_folds(self.split, self.seed)
        finalists = compare_finalists(task, make_finalists(task, trials, self.seed), self.split, folds, self.map_fn)
        self.console.print(tabulate_finalists(task, finalists))
        for finalist in finalists:
            metrics = {f"repeated-cv.{finalist.name}.{name}": value for name, value in finalist.metrics.items()}
            log_values(self.ledger.parent_id, metrics=metrics)
        return choose_winner(finalists)

    def _track(self, evaluations: Sequence[Evaluation]) -> TrackedModel:
        ledger = self.ledger
        return track_model(ledger.experiment_id, ledger.parent_id, ledger.data, self.split, evaluations)

    def _show(self, evaluations: Sequence[Evaluation]) -> None:
        scores = list_scores(evaluations)
        mlflow.MlflowClient().log_text(self.ledger.parent_id, render_scores(scores), "scores.md")
        self.console.print(*tabulate_scores(scores), sep="\n")
        self.console.print()
