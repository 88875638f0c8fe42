"""How long ten trials take: the published loop against this project's leak-free search.

    python -m tests.benchmarks.search_speed FOLDER [--trials N] [--pairs N]

FOLDER holds the published pair. The published loop: hyperopt's fmin, one trial after the other, XGBoost on the whole
train file with its default threads, 1,000 rounds, stopped by the validation file, untracked. Ours: the same number of
trials with each in MLflow, by themselves; and the whole process of `python -m experiment_tracking.search`, from its
start to the winner's runs, in a store that is there already. All in turn in one run; a ratio is the median of the
pairs'. The figures go to results/search_speed.json.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from commands import run_command
from settings import ROOT
from tests.benchmarks.results import make_row, parse_arguments, publish_result, time_work
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData, load_wines

SEED = 42


def time_published(data: WineData, trials: int) -> float:
    """Seconds of the published loop."""
    import xgboost as xgb
    from hyperopt import STATUS_OK, Trials, fmin, tpe

    from experiment_tracking.search.space import PUBLISHED, describe_published_space

    train, validation = (xgb.DMatrix(feature_frame(t), label=t[TARGET]) for t in (data.train, data.validation))

    def objective(values: dict[str, object]) -> dict[str, object]:
        booster = xgb.train(
            values | {"objective": "reg:squarederror", "seed": SEED}, train, PUBLISHED["n_estimators"],
            evals=[(validation, "validation")], verbose_eval=False,
            early_stopping_rounds=PUBLISHED["early_stopping_rounds"],
        )  # fmt: skip
        return {"loss": booster.best_score, "status": STATUS_OK}

    draws, space = np.random.default_rng(SEED), describe_published_space()
    return time_work(
        lambda: fmin(objective, space, tpe.suggest, trials, trials=Trials(), rstate=draws, show_progressbar=False)
    )


def time_process(folder: Path, trials: int) -> float:
    """Seconds of a whole search, on its own."""
    from experiment_tracking.runs.store import open_store

    with tempfile.TemporaryDirectory() as name:
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{name}/mlflow.db", "WINE_MLFLOW_ARTIFACTS": f"{name}/mlartifacts"}
        open_store(store["MLFLOW_TRACKING_URI"], Path(name) / "mlartifacts")
        environment = os.environ | store | {"WINE_DATA": str(folder.absolute()), "WINE_SEED": str(SEED)}
        command = [sys.executable, "-m", "experiment_tracking.search", "--trials", str(trials)]
        return time_work(
            lambda: subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        )


def main() -> int:
    """Time all, print, write."""
    arguments = parse_arguments(__doc__, "folder", trials=10, pairs=3)

    from executors import open_executor
    from experiment_tracking.search.space import Plan
    from tests.benchmarks.trials import time_trials
    from wine_data.split import split_wines

    data, trials = load_wines(str(arguments.folder), SEED, arguments.folder, ""), arguments.trials
    split = split_wines(data.train, data.validation, 5, SEED)
    plan = Plan(trials=trials, seed=SEED, workers=os.cpu_count() or 1)
    rounds = []
    for _ in range(arguments.pairs):
        with open_executor(plan.workers) as threads:
            ours = time_trials(threads, plan, data, split)
        rounds.append((time_published(data, trials), ours, time_process(arguments.folder, trials)))
    published, ours, whole = np.array(rounds).T
    return publish_result(
        "search_speed",
        "search_speed FOLDER",
        [
            make_row(f"published loop, {trials} trials", "", show(published, "s", 1)),
            make_row(f"leak-free search, {trials} trials, tracked", "", show(ours, "s", 1)),
            make_row("ratio", "<= 0.2", show(ours / published, "", 3)),
            make_row(f"whole process of a search of {trials} trials", "", show(whole, "s", 1)),
            make_row("ratio", "<= 0.6", show(whole / published, "", 3)),
        ],
    )


def show(values: np.ndarray, unit: str, places: int) -> str:
    """Median and range over the pairs."""
    low, middle, high = (f"{value:.{places}f}" for value in np.percentile(values, [0, 50, 100]))
    return f"{middle} {unit}".strip() + f" ({low} to {high})"


if __name__ == "__main__":
    run_command(main)
