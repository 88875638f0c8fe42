"""How long ten trials take: the published loop against this project's leak-free search.

    python -m tests.benchmarks.search_speed FOLDER [--trials N]

FOLDER holds the published pair. The published loop: hyperopt's fmin, one trial after the other, XGBoost on the whole
train file with its default threads, 1,000 rounds, stopped by the validation file, untracked. Ours: the same number of
trials of `--task regressor`, with each in MLflow. Both in one run; the figures go to results/search_speed.json.
"""

import os

from commands import run_command
from tests.benchmarks.results import make_row, parse_arguments, publish_result, time_work
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData, load_wines

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

    draws, space = np.random.default_rng(SEED), describe_published_space()
    return time_work(
        lambda: fmin(objective, space, tpe.suggest, trials, trials=Trials(), rstate=draws, show_progressbar=False)
    )


def main() -> int:
    """Time both, print, write."""
    arguments = parse_arguments(__doc__, "folder", trials=10)

    from executors import open_executor
    from experiment_tracking.search.space import Plan
    from tests.benchmarks.trials import time_trials
    from wine_data.split import split_wines

    data, trials = load_wines(str(arguments.folder), SEED, arguments.folder, ""), arguments.trials
    split = split_wines(data.train, data.validation, 5, SEED)
    cores = os.cpu_count() or 1
    with open_executor(cores) as threads:
        plan = Plan(task="regressor", trials=trials, seed=SEED, workers=cores)
        _, ours = time_trials(threads, plan, data, split)
    published = time_published(data, trials)
    rows = [
        make_row(f"published loop, {trials} trials", "", f"{published:.0f} s"),
        make_row(f"leak-free search, {trials} trials, tracked", "", f"{ours:.1f} s"),
        make_row("ratio", "<= 0.1", f"{ours / published:.3f}"),
    ]
    return publish_result("search_speed", "search_speed FOLDER", rows)


if __name__ == "__main__":
    run_command(main)
