"""What the search finds, beside the default forests: on cross-validation of train, then on the holdout; two seeds.

    python -m tests.benchmarks.search_quality FOLDER [--trials N] [--seeds N …]

FOLDER holds the published pair. For each seed: the default search, its finalists on repeated grouped cv, the winner
on fresh folds and, once, on the holdout. A mean is over the seeds; the holdout's interval is the widest of theirs, of
the paired difference to the default ExtraTreesClassifier. The figures go to results/search_quality.json.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commands import run_command
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

    from experiment_tracking.search.finalists import Finalist

SEEDS, FOLDS = [42, 43], 5
REGRESSOR = "RandomForestRegressor"
TUNED = ("TunedXGB", "TunedForest", "Kernel", "Blend")
GOALS = {"kappa": ">= 0.57", "accuracy": ">= 0.57", "ece": "<= 0.03", "rps": "<= 0.334"}


@dataclass(frozen=True)
class Outcome:
    """What a search with one seed came to: finalists, the winner's measures in cv, and the holdout against the default.

    `difference` is the kappa over the default's with the bounds of its 95 % interval.
    """

    finalists: "dict[str, Finalist]"
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

    from executors import open_executor
    from experiment_tracking.search.finalists import choose_winner, compare_finalists, make_finalists, repeat_folds
    from experiment_tracking.search.selection import Selection
    from tests.benchmarks.trials import open_search
    from wine_data.split import split_wines
    from wine_quality_training.estimators import GradesFromNumbers

    split = split_wines(data.train, data.validation, FOLDS, seed)
    plan = Plan(task="classifier", trials=trials, seed=seed, workers=os.cpu_count() or 1)
    console = Console(quiet=True)
    with open_executor(plan.workers) as threads, open_search(data, plan) as search:
        from experiment_tracking.search.tuning import run_trials

        selection = Selection(plan, split, search, console, threads)
        tuned = selection.make_tuned(run_trials(threads, plan, split, search, console))
        forest = GradesFromNumbers(make_model(REGRESSOR, seed).named_steps["model"])
        models = make_finalists(tuned, seed) | {REGRESSOR: forest}
        finalists = compare_finalists(models, split, repeat_folds(split, seed), threads.map)
        winner = choose_winner(finalists, split)
        (served,) = selection.evaluate_winner(winner)
    default = evaluate_leak_free("default", make_model("ExtraTreesClassifier", seed), split)
    ours, theirs = (one.predictions["holdout"] for one in (served, default))
    return Outcome(
        {each.name: each for each in finalists},
        winner.name,
        measure_table(served.predictions["cv"], served.score_on("cv").metrics),
        measure_table(ours, served.score_on("holdout").metrics),
        find_gain(ours, theirs),
    )


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
    rmse = {name: [each.finalists[name].metrics["rmse"] for each in outcomes] for name in shared}
    default = [each.finalists[REGRESSOR].metrics["rmse"] for each in outcomes]
    best = min(rmse, key=lambda name: float(np.mean(rmse[name])))
    ratio = mean([ours / theirs for ours, theirs in zip(rmse[best], default, strict=True)])
    rows.append(make_row(f"{REPEATED}: RMSE ratio of {best} to {REGRESSOR}", "<= 0.97", ratio))
    for measure, title in (("rmse", "RMSE"), ("kappa", "kappa"), ("accuracy", "accuracy")):
        for name in [*shared, REGRESSOR]:
            values = [each.finalists[name].metrics[measure] for each in outcomes]
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
