"""Model selection: a search from its plan to the winner, which is the best of each family, or their blend.

These finalists are compared with the forest that scikit-learn starts with, on repeated grouped cross-validation of
train, on other folds than the search was tuned on. The winner's "cv" is of still other folds, and its holdout, which
had no say in all this, is opened once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import mlflow
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from xgboost import XGBRegressor

from executors import MapFunction, make_map, open_executor
from experiment_tracking.runs.tracking import KILLED, TrackedModel, end_run, log_values, track_model
from experiment_tracking.search.figures import plot_study
from experiment_tracking.search.space import (
    CLASSIFIER,
    FAMILIES,
    FOREST,
    REGRESSOR,
    TASKS,
    XGBOOST,
    Plan,
    Study,
    make_forest,
)
from experiment_tracking.search.trials import Trial, choose_best, measure_loss
from experiment_tracking.search.tuning import SearchRun, resume_search, run_trials, start_search
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split, fold_wines
from wine_quality_training.estimators import KERNEL_WINES, TREES, GradesFromNumbers, blend_classifiers, blend_regressors
from wine_quality_training.evaluate import (
    AS_PUBLISHED,
    MEASURES,
    Evaluation,
    evaluate_as_published,
    evaluate_leak_free,
    measure_predictions,
)
from wine_quality_training.models import impute_before, make_model, predicts_grades
from wine_quality_training.report.tables import HEADINGS, list_scores, render_scores, tabulate_scores

REPEATS, PARTS = 2, 3  # what counts are differences; these six fits take half the time of ten on five parts
DEFAULTS = {REGRESSOR: "RandomForestRegressor", CLASSIFIER: "RandomForestClassifier"}
BLENDS = {REGRESSOR: "BlendRegressor", CLASSIFIER: "BlendClassifier"}
SHORT = {XGBOOST: "XGB", FOREST: "Forest"}
PUBLISHED = "PublishedXGBRegressor"

Fold = tuple[int, np.ndarray, np.ndarray]  # repeat, rows to fit on, rows to score


@dataclass(frozen=True)
class SearchResult:
    """A search that is over: its parent run, its trials, the models that were scored, and the runs to register."""

    run_id: str
    trials: list[Trial]
    evaluations: list[Evaluation]
    tracked: list[TrackedModel]


@dataclass(frozen=True)
class Finalist:
    """An unfitted model with its mean measures and loss over the repeats."""

    name: str
    pipeline: Pipeline
    metrics: dict[str, float]
    loss: float


def search_models(plan: Plan, data: WineData, split: Split, experiment_id: str, console: Console) -> SearchResult:
    """Run a search, or resume the last unfinished one like it, and put all it comes to into MLflow."""
    search = _open_search(plan, data, split, experiment_id)
    try:
        with open_executor(plan.workers, plan.dask) as executor:
            trials = run_trials(executor, plan, split, search, console)
            selection = Selection(split, plan.seed, search, console, make_map(executor))
            selection.log_trials(trials)
            finish = selection.finish_published if plan.protocol == AS_PUBLISHED else selection.finish_leak_free
            evaluations, tracked = finish(trials)
    except Exception as error:
        end_run(search.run_id, error)
        raise
    except BaseException:
        end_run(search.run_id, "the search was stopped; --resume goes on with it", KILLED)
        raise
    end_run(search.run_id)
    return SearchResult(search.run_id, trials, evaluations, tracked)


def _open_search(plan: Plan, data: WineData, split: Split, experiment_id: str) -> SearchRun:
    identity = {
        "protocol": plan.protocol,
        "task": plan.task,
        "seed": plan.seed,
        "folds": len(split.folds),
        "fingerprint": data.fingerprint,
        "batch": plan.batch,
    }
    if plan.resume:
        return resume_search(experiment_id, data, identity)
    budget = {"trials": plan.trials, "minutes": plan.minutes, "workers": plan.workers}
    return start_search(experiment_id, data, identity, budget)


def make_best(trial: Trial, seed: int) -> BaseEstimator:
    """The unfitted model of a trial: XGBoost with the median of the rounds that its folds were stopped at.

    A forest takes all cores. XGBoost takes one: on so few wines a second saves a third of 0.4 s while it
    is idle, and makes it 11 s while another process uses it, because the threads wait for each other.
    """
    if trial.study.family == FOREST:
        return make_forest(trial.study, trial.values, seed, TREES, cores=-1)
    rounds = int(np.median(trial.result.rounds))
    return XGBRegressor(n_estimators=rounds, **trial.values, random_state=seed, n_jobs=1)


def make_finalists(task: str, trials: Sequence[Trial], seed: int, kernel: bool = True) -> dict[str, Pipeline]:
    """The default forest, the best of each family, and the blend where there is one of both; all unfitted.

    `kernel` is whether the kernel is in the blend.
    """
    models = {DEFAULTS[task]: make_model(DEFAULTS[task], seed)}
    best = {family: choose_best(trials, Study(task, family)) for family in FAMILIES}
    made = {family: make_best(trial, seed) for family, trial in best.items() if trial}
    for family, model in made.items():
        numbers = task == CLASSIFIER and family == XGBOOST
        name = f"Tuned{SHORT[family]}{task.capitalize()}"
        models[name] = impute_before(GradesFromNumbers(model) if numbers else model)
    if len(made) == 2:
        parts = made[XGBOOST], made[FOREST]
        blend = blend_regressors(*parts, kernel) if task == REGRESSOR else blend_classifiers(*parts, seed, kernel)
        models[BLENDS[task]] = impute_before(blend)
    return models


def repeat_folds(split: Split, seed: int, repeats: int = REPEATS, parts: int = PARTS) -> list[Fold]:
    """Cut train into parts several times: (repeat, rows to fit on, rows to score)."""
    return [
        (repeat, fit_on, score_on)
        for repeat in range(repeats)
        for fit_on, score_on in fold_wines(split.train, parts, seed + 1 + repeat)
    ]


def cut_fresh_folds(split: Split, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """As many folds as the search was tuned on, cut anew, so that its winner has no advantage over untuned models."""
    return fold_wines(split.train, len(split.folds), seed + 1 + REPEATS)


def compare_finalists(
    task: str, models: Mapping[str, Pipeline], split: Split, folds: Sequence[Fold], map_fn: MapFunction = map
) -> list[Finalist]:
    """Score each on repeated grouped cross-validation of train, in the order given; `map_fn` runs the fits."""
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
    finalists = []
    for name, model in models.items():
        measures = [measure_predictions(y, repeat) for repeat in predictions[name]]
        metrics = {measure: float(np.mean([each[measure] for each in measures])) for measure in MEASURES}
        loss = float(np.mean([measure_loss(task, y, repeat) for repeat in predictions[name]]))
        finalists.append(Finalist(name, model, metrics, loss))
    return finalists


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


def _fit_and_predict(model: Pipeline, X: pd.DataFrame, y: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    predictions: np.ndarray = clone(model).fit(X, y).predict(table)
    return predictions


@dataclass(frozen=True)
class Selection:
    """What follows the trials of a search; `map_fn` runs the fits."""

    split: Split
    seed: int
    search: SearchRun
    console: Console
    map_fn: MapFunction = map

    def log_trials(self, trials: Sequence[Trial]) -> None:
        """Log figures, the best values of each study and the rounds of the best XGBoost's fit on the parent run."""
        run_id = self.search.run_id
        for study in dict.fromkeys(trial.study for trial in trials):
            for name, figure in plot_study(trials, study).items():
                mlflow.MlflowClient().log_figure(run_id, figure, f"figures/{name}.png")
            best = choose_best(trials, study)
            if best is None or best.result.loss is None:
                continue
            prefix = f"best.{study.task}.{study.family}"
            parameters = {f"{prefix}.{name}": value for name, value in best.values.items()}
            parameters[f"{prefix}.trial"] = best.number
            series = {}
            if study.family == XGBOOST:
                X, y = feature_frame(self.split.train), self.split.train[TARGET]
                fitted = make_best(best, self.seed).fit(X, y, eval_set=[(X, y)], verbose=False)
                series[f"{prefix}.final_fit.rmse"] = fitted.evals_result()["validation_0"]["rmse"]
            log_values(run_id, parameters, {f"{prefix}.loss": best.result.loss}, series)

    def finish_leak_free(self, trials: Sequence[Trial]) -> tuple[list[Evaluation], list[TrackedModel]]:
        """Choose a winner for each task, then open the holdout for the winners, and track them."""
        tasks = [task for task in TASKS if any(trial.study.task == task for trial in trials)]
        winners = [self._choose_winner(task, trials) for task in tasks]
        fresh = replace(self.split, folds=cut_fresh_folds(self.split, self.seed))
        evaluations = [evaluate_leak_free(one.name, one.pipeline, fresh, map_fn=self.map_fn) for one in winners]
        tracked = self._track(*([evaluation] for evaluation in evaluations))
        for winner, model in zip(winners, tracked, strict=True):
            following = f"make mlflow shows {model.name}; the API serves classifiers: --task classifier"
            if predicts_grades(winner.pipeline):
                command = f"python -m experiment_tracking.registry register {model.run_id}"
                following = f"make {model.name} a version, {command}"
            self.console.print(f"Next: {following}")
        return evaluations, tracked

    def finish_published(self, trials: Sequence[Trial]) -> tuple[list[Evaluation], list[TrackedModel]]:
        """Score the published search's best values under both protocols, to show what its objective is worth."""
        best = choose_best(trials, Study(REGRESSOR, XGBOOST))
        assert best is not None
        pipeline = impute_before(make_best(best, self.seed))
        evaluations = [
            evaluate_as_published(PUBLISHED, pipeline, self.search.data, self.map_fn),
            evaluate_leak_free(PUBLISHED, pipeline, self.split, map_fn=self.map_fn),
        ]
        tracked = self._track(evaluations)
        published, leak_free = evaluations[0].score_on("validation"), evaluations[1].score_on("holdout")
        self.console.print(
            f"\nRMSE {published.metrics['rmse']:.3f} on the validation file, {leak_free.metrics['rmse']:.3f} on wines "
            "it has not seen: this search tunes to memory.\nNext: python -m experiment_tracking.search"
        )
        return evaluations, tracked

    def _choose_winner(self, task: str, trials: Sequence[Trial]) -> Finalist:
        folds, wines = repeat_folds(self.split, self.seed), len(self.split.train)
        models = make_finalists(task, trials, self.seed, kernel=wines <= KERNEL_WINES)
        finalists = compare_finalists(task, models, self.split, folds, self.map_fn)
        self.console.print(tabulate_finalists(task, finalists))
        if wines > KERNEL_WINES:
            self.console.print(
                f"The blend is without the kernel: its memory grows with the square of the wines, and train holds "
                f"{wines:,}, more than {KERNEL_WINES:,}."
            )
        for finalist in finalists:
            metrics = {f"repeated-cv.{finalist.name}.{name}": value for name, value in finalist.metrics.items()}
            log_values(self.search.run_id, metrics=metrics)
        return min(finalists, key=lambda finalist: finalist.loss)

    def _track(self, *models: Sequence[Evaluation]) -> list[TrackedModel]:
        """Track each model by its evaluations, and show the scores of all."""
        search = self.search
        tracked = [track_model(search.experiment_id, search.run_id, search.data, self.split, each) for each in models]
        scores = list_scores([evaluation for each in models for evaluation in each])
        mlflow.MlflowClient().log_text(search.run_id, render_scores(scores), "scores.md")
        self.console.print(*tabulate_scores(scores), sep="\n")
        self.console.print()
        return tracked
