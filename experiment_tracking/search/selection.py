"""Model selection: a search from its plan to the runs of its winner.

Finalists are compared on folds of train that the trials did not use, each fitted once per fold. The winner's
out-of-fold predictions give its "cv" scores and decide its rule. The holdout does not influence the choice:
only the winner is scored on it, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlflow
import numpy as np
from rich.console import Console
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from xgboost import XGBRegressor

from experiment_tracking.runs.tracking import KILLED, TrackedModel, end_run, log_values, track_model
from experiment_tracking.search.finalists import (
    KERNEL,
    TUNED_FOREST,
    TUNED_XGB,
    Finalist,
    FitRunner,
    begin_fits,
    choose_winner,
    compare_finalists,
    make_finalists,
    open_runner,
    tabulate_finalists,
)
from experiment_tracking.search.space import (
    CLASSIFIER,
    FOREST,
    RANKING,
    RATE,
    REGRESSOR,
    XGBOOST,
    Plan,
    Values,
    make_forest,
)
from experiment_tracking.search.trials import Trial, choose_best
from experiment_tracking.search.tuning import SearchRun, resume_search, run_trials, start_search
from wine_data.schema import GRADES, ROWS, TARGET, TYPE, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.estimators import KERNEL_WINES, ExpectedGrade, GradesFromNumbers, OrdinalClassifier
from wine_quality_training.evaluate import (
    AS_PUBLISHED,
    LEAK_FREE,
    PROBABILITIES,
    Evaluation,
    evaluate_as_published,
    evaluate_leak_free,
    evaluate_predictions,
    predict_wines,
)
from wine_quality_training.models import impute_before
from wine_quality_training.report.tables import list_scores, render_scores, tabulate_scores

TREES = 100  # of the tracked forest; 500 lower RMSE by 0.2 % and make the pickle five times as large
FEWEST_TO_PLOT = 4
PUBLISHED = "PublishedXGBRegressor"


@dataclass(frozen=True)
class SearchResult:
    """A finished search: its parent run, its trials, the scored models, and the runs to register."""

    run_id: str
    trials: list[Trial]
    evaluations: list[Evaluation]
    tracked: list[TrackedModel]


def search_models(plan: Plan, data: WineData, split: Split, experiment_id: str, console: Console) -> SearchResult:
    """Run a search, or resume the last unfinished one like it, and log its results in MLflow."""
    with open_runner(plan, split) as runner:
        return search_with(runner, open_search(plan, data, split, experiment_id), plan, split, console)


def search_with(runner: FitRunner, search: SearchRun, plan: Plan, split: Split, console: Console) -> SearchResult:
    """Run a search whose parent run has started."""
    try:
        trials = run_trials(runner.executor, plan, split, search, console)
        selection = Selection(plan, split, search, console, runner)
        finish = selection.finish_published if plan.protocol == AS_PUBLISHED else selection.finish_leak_free
        evaluations, tracked = finish(trials)
    except Exception as error:
        end_run(search.run_id, error)
        raise
    except BaseException:
        end_run(search.run_id, "the search was stopped; --resume continues it", KILLED)
        raise
    end_run(search.run_id)
    return SearchResult(search.run_id, trials, evaluations, tracked)


def open_search(plan: Plan, data: WineData, split: Split, experiment_id: str) -> SearchRun:
    """Start the parent run of a search, or find the one to resume."""
    identity = {
        "protocol": plan.protocol,
        "seed": plan.seed,
        "folds": len(split.folds),
        "fingerprint": data.fingerprint,
        "batch": plan.batch,
    }
    if plan.resume:
        return resume_search(experiment_id, data, identity)
    budget = {"task": plan.task, "trials": plan.trials, "minutes": plan.minutes, "workers": plan.workers}
    return start_search(experiment_id, data, identity, budget)


def make_booster(values: Values, rounds: int, seed: int) -> XGBRegressor:
    """An unfitted XGBoost that uses one core.

    On so few wines, a second core saves a third of 0.4 s if it is idle. If another process uses it, the fit takes 11 s,
    because the threads wait for each other.
    """
    return XGBRegressor(n_estimators=rounds, **values, random_state=seed, n_jobs=1)


def make_regressor(classifier: Evaluation) -> Evaluation:
    """The regressor inside an evaluated OrdinalClassifier: it predicts the expected grade, and needs no fit."""
    impute, model = classifier.pipeline.named_steps.values()
    pipeline = Pipeline([("impute", impute), ("model", ExpectedGrade.of_fitted(model.classifier_))])
    predictions = {
        scored_on: table.drop(columns=[*PROBABILITIES, "confidence"]).assign(
            prediction=table[list(PROBABILITIES)].to_numpy() @ np.array(GRADES)
        )
        for scored_on, table in classifier.predictions.items()
    }
    name = name_model(classifier.name.removesuffix(CLASSIFIER.capitalize()), REGRESSOR)
    return evaluate_predictions(name, LEAK_FREE, pipeline, predictions)


def name_model(finalist: str, task: str) -> str:
    """A finalist's model name, such as BlendClassifier."""
    return f"{finalist}{task.capitalize()}"


@dataclass(frozen=True)
class Selection:
    """The steps after the trials of a search; `runner` ran their fits."""

    plan: Plan
    split: Split
    search: SearchRun
    console: Console
    runner: FitRunner

    def log_trials(self, trials: Sequence[Trial]) -> None:
        """Log a figure and the best values of each family on the parent run."""
        for family in dict.fromkeys(trial.family for trial in trials):
            if sum(trial.family == family and trial.result.loss is not None for trial in trials) >= FEWEST_TO_PLOT:
                from experiment_tracking.search.figures import plot_study  # short searches do not load matplotlib

                figure = plot_study(trials, family)
                mlflow.MlflowClient().log_figure(self.search.run_id, figure, f"figures/{family}.png")
            best = choose_best(trials, family)
            if best is None or best.result.loss is None:
                continue
            parameters = {f"best.{family}.{name}": value for name, value in best.values.items()}
            parameters[f"best.{family}.trial"] = best.number
            log_values(self.search.run_id, parameters, {f"best.{family}.loss": best.result.loss})

    def finish_leak_free(self, trials: Sequence[Trial]) -> tuple[list[Evaluation], list[TrackedModel]]:
        """Choose a winner, score it on the holdout, and track it for the planned tasks."""
        evaluations = self.evaluate_winner(self._choose_winner(trials))
        tracked = self._track(*([evaluation] for evaluation in evaluations))
        for model in tracked:
            following = f"make mlflow shows {model.name}; the API serves classifiers: --task {CLASSIFIER}"
            if model.classifies:
                command = f"python -m experiment_tracking.registry register {model.run_id}"
                following = f"to register {model.name}: {command}"
            self.console.print(f"Next: {following}")
        return evaluations, tracked

    def finish_published(self, trials: Sequence[Trial]) -> tuple[list[Evaluation], list[TrackedModel]]:
        """Score the published search's best values under both protocols, to show that it tunes to memory."""
        self.log_trials(trials)
        best = choose_best(trials, XGBOOST)
        assert best is not None
        pipeline = impute_before(make_booster(best.values, best.result.rounds[0], self.plan.seed))
        evaluations = [
            evaluate_as_published(PUBLISHED, pipeline, self.search.data, self.runner.executor.map),
            evaluate_leak_free(PUBLISHED, pipeline, self.split, map_fn=self.runner.executor.map),
        ]
        tracked = self._track(evaluations)
        published, leak_free = evaluations[0].score_on("validation"), evaluations[1].score_on("holdout")
        self.console.print(
            f"\nRMSE {published.metrics['rmse']:.3f} on the validation file, {leak_free.metrics['rmse']:.3f} on {ROWS} "
            "it has not seen: this search tunes to memory.\nNext: python -m experiment_tracking.search"
        )
        return evaluations, tracked

    def make_tuned(self, trials: Sequence[Trial]) -> dict[str, BaseEstimator]:
        """The best of each family as an unfitted classifier, by name."""
        tuned: dict[str, BaseEstimator] = {}
        booster, forest = (choose_best(trials, family) for family in (XGBOOST, FOREST))
        if booster:  # rounds are inversely proportional to the rate
            rounds = int(np.median(booster.result.rounds) * RANKING["learning_rate"] / RATE)
            slow = make_booster({**booster.values, "learning_rate": RATE}, rounds, self.plan.seed)
            tuned[TUNED_XGB] = GradesFromNumbers(slow)
        if forest:
            tuned[TUNED_FOREST] = make_forest(forest.values, self.plan.seed, TREES, cores=-1)
        return tuned

    def evaluate_winner(self, winner: Finalist) -> list[Evaluation]:
        """Fit the winner on all of train, and evaluate it as regressor, classifier or both, as planned."""
        assert winner.rule is not None
        train, holdout = self.split.train, self.split.holdout
        fitted = impute_before(winner.model).fit(feature_frame(train), train[TARGET])
        impute, model = fitted.named_steps.values()
        pipeline = Pipeline([("impute", impute), ("model", OrdinalClassifier.of_fitted(model, winner.rule))])
        confidence = winner.probabilities[np.arange(len(train)), winner.decided]
        cv = train[[TYPE, TARGET]].assign(prediction=np.array(GRADES)[winner.decided], confidence=confidence)
        cv[list(PROBABILITIES)] = winner.probabilities
        tables = {"cv": cv, "holdout": holdout[[TYPE, TARGET]].join(predict_wines(pipeline, feature_frame(holdout)))}
        classifier = evaluate_predictions(name_model(winner.name, CLASSIFIER), LEAK_FREE, pipeline, tables)
        regressor = [] if self.plan.task == CLASSIFIER else [make_regressor(classifier)]
        return regressor if self.plan.task == REGRESSOR else [*regressor, classifier]

    def _choose_winner(self, trials: Sequence[Trial]) -> Finalist:
        tuned, untuned = self.make_tuned(trials), self.runner.untuned
        folds = self.runner.folds
        fits = self.runner.fits | begin_fits(tuned, self.split, folds, self.runner.executor.map)
        self.log_trials(trials)  # draws figures while the fits run
        finalists = compare_finalists(make_finalists(untuned, tuned), fits, self.split, folds)
        self.console.print(tabulate_finalists(finalists))
        if KERNEL not in untuned:
            self.console.print(
                f"There is no blend: the kernel's memory grows with the square of the {ROWS}, and train holds "
                f"{len(self.split.train):,}, more than {KERNEL_WINES:,}."
            )
        metrics = {
            f"finalists-cv.{finalist.name}.{name}": value
            for finalist in finalists
            for name, value in finalist.metrics.items()
        }
        log_values(self.search.run_id, metrics=metrics)
        return choose_winner(finalists, self.split)

    def _track(self, *models: Sequence[Evaluation]) -> list[TrackedModel]:
        """Track each model by its evaluations, and show the scores of all."""
        search = self.search
        tracked = [track_model(search.experiment_id, search.run_id, search.data, self.split, each) for each in models]
        scores = list_scores([evaluation for each in models for evaluation in each])
        mlflow.MlflowClient().log_text(search.run_id, render_scores(scores), "scores.md")
        self.console.print(*tabulate_scores(scores), sep="\n")
        self.console.print()
        return tracked
