"""What follows the trials: figures and best values on the parent run, and the winner in a run of its own."""

from collections.abc import Sequence

import mlflow
from rich.console import Console

from executors import Spread
from experiment_tracking.finalists import (
    choose_winner,
    compare_finalists,
    make_best,
    make_finalists,
    tabulate_finalists,
    trace_final_fit,
)
from experiment_tracking.search_figures import draw_search
from experiment_tracking.search_loop import Trial, choose_best
from experiment_tracking.search_runs import Ledger
from experiment_tracking.search_space import REGRESSOR, TASKS, XGBOOST, Study
from experiment_tracking.tracking import TrackedModel, log_values, track_model
from wine_data.split import Sides
from wine_quality_training.evaluate import Evaluation, evaluate_as_published, evaluate_leak_free
from wine_quality_training.models import impute_before, predicts_grades
from wine_quality_training.report import list_scores, render_scores, tabulate_scores

PUBLISHED = "PublishedXGBRegressor"


def log_trials(trials: Sequence[Trial], sides: Sides, seed: int, ledger: Ledger) -> None:
    """Put the figures, the best values of each study and the rounds of the best XGBoost's fit on the parent run."""
    client = mlflow.MlflowClient()
    studies = list(dict.fromkeys(trial.study for trial in trials))
    for name, figure in draw_search(trials, studies).items():
        client.log_figure(ledger.parent_id, figure, f"figures/{name}.png")
    for study in studies:
        best = choose_best(trials, study)
        if best is None or best.result.loss is None:
            continue
        prefix = f"best.{study.task}.{study.family}"
        series = {}
        if study.family == XGBOOST:
            series = {f"{prefix}.final_fit.rmse": trace_final_fit(make_best(best, seed), sides)}
        log_values(
            ledger.parent_id,
            {f"{prefix}.{name}": value for name, value in best.values.items()} | {f"{prefix}.trial": best.number},
            {f"{prefix}.loss": best.result.loss},
            series,
        )


def finish_leak_free(
    trials: Sequence[Trial], sides: Sides, seed: int, ledger: Ledger, console: Console, spread: Spread = map
) -> tuple[list[Evaluation], list[TrackedModel]]:
    """Choose a winner for each task, then open the holdout for the winners, and track them."""
    winners = []
    for task in (task for task in TASKS if any(trial.study.task == task for trial in trials)):
        finalists = compare_finalists(task, make_finalists(task, trials, seed), sides, seed, spread)
        console.print(tabulate_finalists(task, finalists))
        for finalist in finalists:
            metrics = {f"repeated-cv.{finalist.name}.{name}": value for name, value in finalist.metrics.items()}
            log_values(ledger.parent_id, metrics=metrics)
        winners.append(choose_winner(finalists))
    evaluations = [evaluate_leak_free(winner.name, winner.pipeline, sides, spread=spread) for winner in winners]
    tracked = [
        track_model(ledger.experiment_id, ledger.parent_id, ledger.data, sides, [evaluation])
        for evaluation in evaluations
    ]
    _show(evaluations, ledger, console)
    for winner, model in zip(winners, tracked, strict=True):
        if predicts_grades(winner.pipeline):
            command = f"python -m experiment_tracking.registry register {model.run_id}"
            console.print(f"Next: make {model.name} a version, {command}")
        else:
            console.print(f"Next: make mlflow shows {model.name}; the API serves classifiers: --task classifier")
    return evaluations, tracked


def finish_published(
    trials: Sequence[Trial], sides: Sides, seed: int, ledger: Ledger, console: Console, spread: Spread = map
) -> tuple[list[Evaluation], list[TrackedModel]]:
    """Score the published search's best values under both protocols, to show what its objective is worth."""
    best = choose_best(trials, Study(REGRESSOR, XGBOOST))
    assert best is not None
    pipeline = impute_before(make_best(best, seed))
    evaluations = [
        evaluate_as_published(PUBLISHED, pipeline, ledger.data, spread),
        evaluate_leak_free(PUBLISHED, pipeline, sides, spread=spread),
    ]
    tracked = [track_model(ledger.experiment_id, ledger.parent_id, ledger.data, sides, evaluations)]
    _show(evaluations, ledger, console)
    published, leak_free = evaluations[0].score_on("validation"), evaluations[1].score_on("holdout")
    console.print(
        f"\nRMSE {published.metrics['rmse']:.3f} on the validation file, {leak_free.metrics['rmse']:.3f} on wines it "
        "has not seen: this search tunes to memory.\nNext: python -m experiment_tracking.search"
    )
    return evaluations, tracked


def _show(evaluations: Sequence[Evaluation], ledger: Ledger, console: Console) -> None:
    scores = list_scores(evaluations)
    mlflow.MlflowClient().log_text(ledger.parent_id, render_scores(scores), "scores.md")
    console.print(*tabulate_scores(scores), sep="\n")
    console.print()
