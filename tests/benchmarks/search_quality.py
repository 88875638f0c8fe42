"""What the search finds, beside the default forests: on cross-validation of train, then on the holdout; two seeds.

    python -m tests.benchmarks.search_quality FOLDER [--trials N] [--seeds N …]

FOLDER holds the published pair. For each seed: the default search, its finalists on fresh folds, which the trials did
not use, and the winner on the same and, once, on the holdout; RMSE on repeated grouped cv, too, because it compares
more surely. A mean is over the seeds; the holdout's interval is the widest of theirs, of the paired difference to the
default ExtraTreesClassifier. The figures go to results/search_quality.json.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commands import run_command
from executors import MapFunction
from experiment_tracking.search.space import TRIALS, Plan
from tests.benchmarks.results import REPEATED, make_row, parse_arguments, publish_result
from wine_data.schema import TARGET
from wine_data.sources.load import WineData, load_wines
from wine_quality_training.coverage import measure_reliability
from wine_quality_training.evaluate import (
    PROBABILITIES,
    bound_difference,
    evaluate_leak_free,
    measure_predictions,
    score_probabilities,
)
from wine_quality_training.models import make_model

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator

    from wine_data.split import Split

MEASURED = {"rmse": "RMSE", "kappa": "kappa", "accuracy": "accuracy"}
SEEDS, FOLDS = [42, 43], 5
REPEATS, PARTS = 2, 3  # of the cross-validation that compares RMSE
REGRESSOR = "RandomForestRegressor"
TUNED = ("TunedXGB", "TunedForest", "Kernel", "Blend")
GOALS = {"kappa": ">= 0.57", "accuracy": ">= 0.57", "ece": "<= 0.03", "rps": "<= 0.334"}


@dataclass(frozen=True)
class Outcome:
    """What a search with one seed came to: the winner's measures in cv, and the holdout against the default.

    `fresh` has the RMSE of each finalist on the fresh folds, `finalists` what is MEASURED of it on repeated cv;
    `difference` is the kappa over the default's with the bounds of its 95 % interval.
    """

    fresh: dict[str, float]
    finalists: dict[str, dict[str, float]]
    winner: str
    cv: dict[str, float]
    holdout: dict[str, float]
    difference: tuple[float, float, float]


def measure_table(table: "pd.DataFrame", metrics: dict[str, float]) -> dict[str, float]:
    """The measures of a classifier's predictions, with those of their probabilities."""
    true, probabilities = table[TARGET].to_numpy(), table[list(PROBABILITIES)].to_numpy()
    rps = float(score_probabilities(true, probabilities.cumsum(axis=1)).mean())
    return metrics | {"rps": rps, "ece": measure_reliability(table).error}


def find_gain(ours: "pd.DataFrame", theirs: "pd.DataFrame") -> tuple[float, float, float]:
    """The kappa of predictions over that of others for the same wines, and its 95 % interval."""
    grades, one, other = (column.to_numpy() for column in (ours[TARGET], ours["prediction"], theirs["prediction"]))
    gain = measure_predictions(grades, one)["kappa"] - measure_predictions(grades, other)["kappa"]
    return gain, *bound_difference(grades, one, other, "kappa")


def search_once(data: WineData, seed: int, trials: int) -> Outcome:
    """Search with one seed, and score the winner."""
    from rich.console import Console

    from experiment_tracking.search.finalists import (
        begin_fits,
        choose_winner,
        compare_finalists,
        make_finalists,
        open_runner,
    )
    from experiment_tracking.search.selection import Selection
    from experiment_tracking.search.tuning import run_trials
    from tests.benchmarks.trials import open_search
    from wine_data.split import split_wines
    from wine_quality_training.estimators import GradesFromNumbers

    split = split_wines(data.train, data.validation, FOLDS, seed)
    plan, console = Plan("leak-free", "classifier", trials, seed, workers=os.cpu_count() or 1), Console(quiet=True)
    with open_runner(plan, split) as runner, open_search(data, plan) as search:
        selection = Selection(plan, split, search, console, runner)
        tuned = selection.make_tuned(run_trials(runner.executor, plan, split, search, console))
        forest = {REGRESSOR: GradesFromNumbers(make_model(REGRESSOR, seed).named_steps["model"])}
        fits = runner.fits | begin_fits(tuned | forest, split, runner.folds, runner.executor.map)
        models = make_finalists(runner.untuned, tuned) | forest
        finalists = compare_finalists(models, fits, split, runner.folds)
        winner = choose_winner(finalists, split)
        (served,) = selection.evaluate_winner(winner)
        repeated = measure_repeated(models, split, seed, runner.executor.map)
    default = evaluate_leak_free("default", make_model("ExtraTreesClassifier", seed), split)
    ours, theirs = (one.predictions["holdout"] for one in (served, default))
    return Outcome(
        {each.name: each.metrics["rmse"] for each in finalists},
        repeated,
        winner.name,
        measure_table(served.predictions["cv"], served.score_on("cv").metrics),
        measure_table(ours, served.score_on("holdout").metrics),
        find_gain(ours, theirs),
    )


def measure_repeated(
    models: "dict[str, BaseEstimator]", split: "Split", seed: int, map_fn: MapFunction
) -> dict[str, dict[str, float]]:
    """What is MEASURED of finalists in repeated grouped cross-validation of train, as means over the repeats."""
    from experiment_tracking.search.finalists import begin_fits, compare_finalists
    from wine_data.split import fold_wines

    repeats = []
    for repeat in range(REPEATS):
        folds = fold_wines(split.train, PARTS, seed + 1 + repeat)
        repeats.append(compare_finalists(models, begin_fits(models, split, folds, map_fn), split, folds))
    return {
        each[0].name: {name: float(np.mean([one.metrics[name] for one in each])) for name in MEASURED}
        for each in zip(*repeats, strict=True)
    }


def tabulate(outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """The rows of the result."""

    def mean(values: Sequence[float]) -> str:
        return f"{np.mean(values):.4f} ({', '.join(f'{value:.4f}' for value in values)})"

    rows = [make_row("winner", "", ", ".join(each.winner for each in outcomes))]
    rows += [
        make_row(f"served model, cv on fresh folds: {name}", goal, mean([each.cv[name] for each in outcomes]))
        for name, goal in GOALS.items()
    ]
    shared = [name for name in TUNED if all(name in each.finalists for each in outcomes)]
    fresh = [each.fresh for each in outcomes]
    repeated = [{name: measured["rmse"] for name, measured in each.finalists.items()} for each in outcomes]
    for folds, goal, rmse in (("cv on fresh folds", "", fresh), (REPEATED, "<= 0.97", repeated)):
        best = min(shared, key=lambda name: float(np.mean([each[name] for each in rmse])))
        ratio = mean([each[best] / each[REGRESSOR] for each in rmse])
        rows.append(make_row(f"{folds}: RMSE ratio of {best} to {REGRESSOR}", goal, ratio))
    for measure, title in MEASURED.items():
        for name in [*shared, REGRESSOR]:
            values = [each.finalists[name][measure] for each in outcomes]
            rows.append(make_row(f"{REPEATED}: {title} of {name}", "", mean(values)))
    rows += [make_row(f"holdout: {name}", "", mean([each.holdout[name] for each in outcomes])) for name in GOALS]
    shown = "; ".join("{:.3f}, 95 % {:.3f} to {:.3f}".format(*each.difference) for each in outcomes)
    return [*rows, make_row("holdout: kappa minus ExtraTreesClassifier's, paired", "interval > 0", shown)]


def main() -> int:
    """Search, score, print, write."""
    arguments = parse_arguments(__doc__, "folder", trials=TRIALS, seeds=SEEDS)
    data = load_wines(str(arguments.folder), SEEDS[0], arguments.folder, "")
    outcomes = [search_once(data, seed, arguments.trials) for seed in arguments.seeds]
    return publish_result("search_quality", "search_quality FOLDER", tabulate(outcomes))


if __name__ == "__main__":
    run_command(main)
