"""What the search finds, beside the default forests: on repeated grouped cross-validation, then on the holdout.

    python -m tests.benchmarks.search_quality FOLDER [--trials N]

Runs the default search, scores its blends on three repeats of five folds it was not tuned on, and opens
the holdout once. The figures go to results/search_quality.json.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from commands import DONE, run_command
from executors import open_executor
from experiment_tracking.search.space import CLASSIFIER, REGRESSOR, TRIALS, Plan
from tests.benchmarks.results import render_result, write_result
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData, read_folder
from wine_quality_training.evaluate import evaluate_leak_free, measure_predictions

if TYPE_CHECKING:
    from experiment_tracking.search.selection import Finalist
    from experiment_tracking.search.trials import Trial
    from wine_data.split import Split

SEED, REPEATS, FOLDS = 42, 3, 5
MEASURES = {REGRESSOR: "rmse", CLASSIFIER: "accuracy"}
ANCHORS = {REGRESSOR: "0.989 (RMSE 0.667)", CLASSIFIER: "1.048 (accuracy 0.593)"}  # AutoGluon 1.6, best_quality, 600 s
GOALS = {REGRESSOR: "<= 0.99", CLASSIFIER: ">= 1.02"}


def run_default_search(data: WineData, split: "Split", trials: int) -> "list[Trial]":
    """The trials of a search with the default knobs, in a store of its own."""
    from rich.console import Console

    from experiment_tracking.runs.store import open_store
    from experiment_tracking.search.tuning import run_trials, start_search

    with tempfile.TemporaryDirectory() as name:
        experiment_id = open_store(f"sqlite:///{name}/mlflow.db", Path(name) / "mlartifacts")
        search = start_search(experiment_id, data, {"trials": trials})
        plan = Plan(trials=trials, seed=SEED, workers=os.cpu_count() or 1)
        with open_executor(plan.workers) as executor:
            return run_trials(executor, plan, split, search, Console(quiet=True))


def bound_ratio(grades: np.ndarray, ours: np.ndarray, default: np.ndarray, measure: str) -> tuple[float, float]:
    """95 % interval of the ratio of two models' measure, over resamples of the same wines for both."""
    random = np.random.default_rng(0)
    draws = random.integers(len(grades), size=(1000, len(grades)))
    ratios = [
        measure_predictions(grades[draw], ours[draw])[measure]
        / measure_predictions(grades[draw], default[draw])[measure]
        for draw in draws
    ]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def score_task(task: str, trials: "list[Trial]", split: "Split") -> list[dict[str, str]]:
    """The rows of one task: cross-validation, time of a fit, then the holdout."""
    from sklearn.base import clone

    from experiment_tracking.search.selection import BLENDS, DEFAULTS, compare_finalists, make_finalists, repeat_folds

    models = make_finalists(task, trials, SEED)
    pair = {name: models[name] for name in (DEFAULTS[task], BLENDS[task])}
    default, blend = compare_finalists(task, pair, split, repeat_folds(split, SEED, REPEATS, FOLDS))
    X, y = feature_frame(split.train), split.train[TARGET]
    start = time.perf_counter()
    clone(blend.pipeline).fit(X, y)
    seconds = time.perf_counter() - start
    return [*_list_cv(task, default, blend, seconds), _score_holdout(task, default, blend, split)]


def _list_cv(task: str, default: "Finalist", blend: "Finalist", seconds: float) -> list[dict[str, str]]:
    measure = MEASURES[task]
    ours, theirs = blend.metrics, default.metrics
    rows = [
        _row(
            f"{task}, repeated grouped cv: {measure} ratio to {default.name}", GOALS[task],
            f"{ours[measure] / theirs[measure]:.3f} ({ours[measure]:.4f} / {theirs[measure]:.4f})",
        ),
        _row(f"{task}: one fit on the training side", "< 20 s", f"{seconds:.1f} s"),
    ]  # fmt: skip
    if task == CLASSIFIER:
        rows.insert(
            1, _row("classifier, repeated grouped cv: kappa", f">= {theirs['kappa']:.3f}", f"{ours['kappa']:.3f}")
        )
    return rows


def _score_holdout(task: str, default: "Finalist", blend: "Finalist", split: "Split") -> dict[str, str]:
    measure = MEASURES[task]
    tables = [evaluate_leak_free(one.name, one.pipeline, split).predictions["holdout"] for one in (blend, default)]
    grades = tables[0][TARGET].to_numpy()
    ours, theirs = (table["prediction"].to_numpy() for table in tables)
    values = [measure_predictions(grades, predictions)[measure] for predictions in (ours, theirs)]
    low, high = bound_ratio(grades, ours, theirs, measure)
    text = f"{values[0] / values[1]:.3f}, 95 % {low:.3f} to {high:.3f} ({values[0]:.4f} / {values[1]:.4f})"
    return _row(f"{task}, holdout: {measure} ratio", "", text, ANCHORS[task])


def _row(figure: str, goal: str, measured: str, anchor: str = "") -> dict[str, str]:
    return {"figure": figure, "goal": goal, "measured": measured, "AutoGluon, 600 s, on another split": anchor}


def main() -> int:
    """Search, score, print, write."""
    parser = argparse.ArgumentParser(description="Score what the search finds beside the default forests.")
    parser.add_argument("folder", type=Path, help="folder with the published pair")
    parser.add_argument("--trials", type=int, default=TRIALS, help="trials of the search")
    arguments = parser.parse_args()

    from wine_data.split import split_wines

    data = WineData(*read_folder(arguments.folder, SEED), "folder", "none")
    split = split_wines(data.train, data.validation, FOLDS, SEED)
    trials = run_default_search(data, split, arguments.trials)
    rows = [row for task in (REGRESSOR, CLASSIFIER) for row in score_task(task, trials, split)]
    path = write_result("search_quality", "python -m tests.benchmarks.search_quality FOLDER", rows)
    print(render_result("search_quality"))
    print(f"\nWritten to {path.name}. Next: copy the table into docs/benchmarks.md; a test compares them")
    return DONE


if __name__ == "__main__":
    run_command(main)
