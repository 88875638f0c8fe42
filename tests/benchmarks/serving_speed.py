"""How fast the API answers, beside a FastAPI route that does nothing and the ways one would serve a model first.

    python -m tests.benchmarks.serving_speed FOLDER [--rounds N] [--seconds S]      (make bench-serving)

Every server runs on one core and wrk on another; in each round every server is asked in turn, so that what the
machine does meanwhile falls on all of them. Figures are medians over the rounds, ratios those of the same round.
"This API" serves the RandomForestClassifier of 100 trees as published, fitted on the whole train file. The forest with
its rule is this project's OrdinalForestClassifier, leak-free, and the blend has the same forest in
it. Goes to results/serving_speed.json.
"""

import argparse
import shutil

from commands import NotThereError, run_command
from settings import load_settings
from tests.benchmarks.results import publish_result
from wine_data.sources.load import load_wines


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="How fast the API answers, on one core.")
    parser.add_argument("source", nargs="?", help="a folder with the two files, or another word of WINE_DATA")
    parser.add_argument("--rounds", type=int, default=8, help="how often every server is asked in turn (8)")
    parser.add_argument("--seconds", type=int, default=2, help="how long each time (2)")
    parser.add_argument("--no-mlflow", action="store_true", help="leave mlflow models serve out")
    arguments = parser.parse_args()
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            raise NotThereError(f"{tool} is not installed: make system-packages")
    settings = load_settings()

    from tests.benchmarks.serving_rounds import SEED, run_benchmark

    data = load_wines(arguments.source or settings.data, SEED, settings.downloads, settings.uci_url)
    rows = run_benchmark(data, arguments.rounds, arguments.seconds, not arguments.no_mlflow)
    without = " --no-mlflow" if arguments.no_mlflow else ""
    return publish_result("serving_speed", f"serving_speed FOLDER{without}", rows)


if __name__ == "__main__":
    run_command(main)
