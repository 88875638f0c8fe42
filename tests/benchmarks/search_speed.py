"""How long ten trials take: the published loop against this project's leak-free search.

    python -m tests.benchmarks.search_speed FOLDER [--trials N]

The published loop: hyperopt's fmin, one trial after the other, XGBoost on the whole train file with its
default threads, 1,000 rounds, stopped by the validation file, untracked. Ours: the same number of trials
of `--task regressor`, with each in MLflow. Both in one run; the figures go to results/search_speed.json.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from commands import DONE, run_command
from executors import open_executor
from tests.benchmarks.results import render_result, write_result
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData, read_folder

if TYPE_CHECKING:
    from wine_data.split import Split

SEED = 42


def time_published(data: WineData, trials: int) -> float:
    """Seconds of the published loop."""
    import numpy as np
    import xgboost as xgb
    from hyperopt import STATUS_OK, Trials, fmin, tpe

    from experiment_tracking.search.space import PUBLISHED_PATIENCE, PUBLISHED_ROUNDS, describe_published_space

    train, validation = (xgb.DMatrix(feature_frame(t), label=t[TARGET]) for t in (data.train, data.validation))

    def objective(values: dict[str, object]) -> dict[str, object]:
        booster = xgb.train(
            values | {"objective": "reg:squarederror", "seed": SEED}, train, PUBLISHED_ROUNDS,
            evals=[(validation, "validation")], early_stopping_rounds=PUBLISHED_PATIENCE, verbose_eval=False,
        )  # fmt: skip
        return {"loss": booster.best_score, "status": STATUS_OK}

    start = time.perf_counter()
    fmin(
        objective, describe_published_space(), tpe.suggest, trials, trials=Trials(),
        rstate=np.random.default_rng(SEED), show_progressbar=False,
    )  # fmt: skip
    return time.perf_counter() - start


def time_ours(data: WineData, split: "Split", trials: int) -> float:
    """Seconds of the same number of leak-free trials of a regressor, tracked in a store of their own."""
    from rich.console import Console

    from experiment_tracking.runs.store import open_store
    from experiment_tracking.search.space import Plan
    from experiment_tracking.search.tuning import run_trials, start_search

    with tempfile.TemporaryDirectory() as name:
        experiment_id = open_store(f"sqlite:///{name}/mlflow.db", Path(name) / "mlartifacts")
        search = start_search(experiment_id, data, {"trials": trials})
        plan = Plan(task="regressor", trials=trials, seed=SEED, workers=os.cpu_count() or 1)
        start = time.perf_counter()
        with open_executor(plan.workers) as executor:
            run_trials(executor, plan, split, search, Console(quiet=True))
        return time.perf_counter() - start


def main() -> int:
    """Time both, print, write."""
    parser = argparse.ArgumentParser(description="Time ten trials of the published search against ours.")
    parser.add_argument("folder", type=Path, help="folder with the published pair")
    parser.add_argument("--trials", type=int, default=10, help="trials of each")
    arguments = parser.parse_args()

    from wine_data.split import split_wines

    data = WineData(*read_folder(arguments.folder, SEED), "folder", "none")
    split = split_wines(data.train, data.validation, 5, SEED)
    ours = time_ours(data, split, arguments.trials)
    published = time_published(data, arguments.trials)
    rows = [
        {"figure": f"published loop, {arguments.trials} trials", "goal": "", "measured": f"{published:.0f} s"},
        {"figure": f"leak-free search, {arguments.trials} trials, tracked", "goal": "", "measured": f"{ours:.1f} s"},
        {"figure": "ratio", "goal": "<= 0.1", "measured": f"{ours / published:.3f}"},
    ]
    path = write_result("search_speed", "python -m tests.benchmarks.search_speed FOLDER", rows)
    print(render_result("search_speed"))
    print(
        f"\nWhy: a fit sees about {len(split.train) * 2 // 3:,} wines, not {len(data.train):,} rows that repeat "
        "them; trees end at depth 12, not 100, and rounds when unseen wines no longer gain; trials run on every "
        "core; and one that does worse than the median after two folds stops there."
    )
    print(f"\nWritten to {path.name}. Next: copy the table into docs/benchmarks.md; a test compares them")
    return DONE


if __name__ == "__main__":
    run_command(main)
