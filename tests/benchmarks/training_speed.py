"""How long the as-published comparison of the five models takes, against scikit-learn's defaults one after the other.

    python -m tests.benchmarks.training_speed FOLDER [--pairs N]

Both sides fit and score the same pipelines in the same order, in turn; the medians and the median of
the ratios go to results/training_speed.json.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from commands import DONE, run_command
from tests.benchmarks.results import render_result, write_result
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData, read_folder
from wine_quality_training.evaluate import evaluate_as_published, measure_predictions
from wine_quality_training.models import MODELS, make_model

SEED = 42


def compare_ours(data: WineData) -> None:
    """Evaluate the five as this project does."""
    for name in MODELS:
        evaluate_as_published(name, make_model(name, SEED), data)


def compare_with_defaults(data: WineData) -> None:
    """Fit and score the same five with n_jobs left at scikit-learn's default, one core."""
    for name in MODELS:
        model = make_model(name, SEED)
        if "n_jobs" in model.named_steps["model"].get_params():
            model.set_params(model__n_jobs=None)
        model.fit(feature_frame(data.train), data.train[TARGET])
        for wines in (data.train, data.validation):
            measure_predictions(wines[TARGET].to_numpy(), model.predict(feature_frame(wines)))


def time_once(compare: Callable[[WineData], None], data: WineData) -> float:
    """Seconds that one comparison takes."""
    start = time.perf_counter()
    compare(data)
    return time.perf_counter() - start


def main() -> int:
    """Time both sides in turn, print, write."""
    parser = argparse.ArgumentParser(description="Time the as-published comparison against scikit-learn's defaults.")
    parser.add_argument("folder", type=Path, help="folder with the published pair")
    parser.add_argument("--pairs", type=int, default=5, help="how often both sides run, in turn")
    arguments = parser.parse_args()
    data = WineData(*read_folder(arguments.folder, SEED), "folder", "none")
    compare_ours(data)  # the first run pays for imports and threads
    pairs = [(time_once(compare_ours, data), time_once(compare_with_defaults, data)) for _ in range(arguments.pairs)]
    ratios = [ours / defaults for ours, defaults in pairs]
    rows = [
        {"figure": "this project, all cores (median)", "goal": "",
         "measured": f"{statistics.median(ours for ours, _ in pairs):.1f} s"},
        {"figure": "scikit-learn's defaults, one after the other (median)", "goal": "",
         "measured": f"{statistics.median(defaults for _, defaults in pairs):.1f} s"},
        {"figure": f"ratio (median of {len(pairs)} pairs; lowest to highest)", "goal": "<= 0.65",
         "measured": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"},
    ]  # fmt: skip
    path = write_result("training_speed", "python -m tests.benchmarks.training_speed FOLDER", rows)
    print(render_result("training_speed"))
    print(f"\nWritten to {path.name}. Next: copy the table into docs/benchmarks.md; a test compares them")
    return DONE


if __name__ == "__main__":
    run_command(main)
