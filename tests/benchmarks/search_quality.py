"""What the search finds, beside the default forests: on repeated grouped cross-validation, then on the holdout.

    python -m tests.benchmarks.search_quality FOLDER [--trials N]

FOLDER holds the published pair. Runs the default search, scores its blends on three repeats of five folds it was not
tuned on, and opens the holdout once. The figures go to results/search_quality.json.
"""

import os
from typing import TYPE_CHECKING

import numpy as np

from commands import run_command
from experiment_tracking.search.space import CLASSIFIER, REGRESSOR, TRIALS, Plan
from tests.benchmarks.results import make_row, parse_arguments, publish_result, time_work
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import load_wines
from wine_quality_training.evaluate import evaluate_leak_free, measure_predictions

if TYPE_CHECKING:
    from experiment_tracking.search.selection import Finalist
    from experiment_tracking.search.trials import Trial
    from wine_data.split import Split

SEED, REPEATS, FOLDS = 42, 3, 5
MEASURES = {REGRESSOR: "rmse", CLASSIFIER: "accuracy"}
ANCHOR = "AutoGluon, 600 s, on another split"
ANCHORS = {REGRESSOR: "0.989 (RMSE 0.667)", CLASSIFIER: "1.048 (accuracy 0.593)"}  # AutoGluon 1.6, best_quality, 600 s
GOALS = {REGRESSOR: "<= 0.99", CLASSIFIER: ">= 1.02"}


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
    seconds = time_work(lambda: clone(blend.pipeline).fit(X, y))
    measure, cv = MEASURES[task], f"{task}, repeated grouped cv"
    ours, theirs = blend.metrics, default.metrics
    ratio = f"{ours[measure] / theirs[measure]:.3f} ({ours[measure]:.4f} / {theirs[measure]:.4f})"
    rows = [make_row(f"{cv}: {measure} ratio to {default.name}", GOALS[task], ratio)]
    if task == CLASSIFIER:
        rows.append(make_row(f"{cv}: kappa", f">= {theirs['kappa']:.3f}", f"{ours['kappa']:.3f}"))
    rows.append(make_row(f"{task}: one fit on the training side", "< 20 s", f"{seconds:.1f} s"))
    holdout = make_row(f"{task}, holdout: {measure} ratio", "", _compare_on_holdout(default, blend, split, measure))
    return [*(row | {ANCHOR: ""} for row in rows), holdout | {ANCHOR: ANCHORS[task]}]


def _compare_on_holdout(default: "Finalist", blend: "Finalist", split: "Split", measure: str) -> str:
    tables = [evaluate_leak_free(one.name, one.pipeline, split).predictions["holdout"] for one in (blend, default)]
    grades = tables[0][TARGET].to_numpy()
    ours, theirs = (table["prediction"].to_numpy() for table in tables)
    one, other = (measure_predictions(grades, predictions)[measure] for predictions in (ours, theirs))
    low, high = bound_ratio(grades, ours, theirs, measure)
    return f"{one / other:.3f}, 95 % {low:.3f} to {high:.3f} ({one:.4f} / {other:.4f})"


def main() -> int:
    """Search, score, print, write."""
    arguments = parse_arguments(__doc__, "folder", trials=TRIALS)

    from executors import open_executor
    from tests.benchmarks.trials import time_trials
    from wine_data.split import split_wines

    data = load_wines(str(arguments.folder), SEED, arguments.folder, "")
    split = split_wines(data.train, data.validation, FOLDS, SEED)
    plan = Plan(trials=arguments.trials, seed=SEED, workers=os.cpu_count() or 1)
    with open_executor(plan.workers) as threads:
        trials, _ = time_trials(threads, plan, data, split)
    rows = [row for task in (REGRESSOR, CLASSIFIER) for row in score_task(task, trials, split)]
    return publish_result("search_quality", "search_quality FOLDER", rows)


if __name__ == "__main__":
    run_command(main)
