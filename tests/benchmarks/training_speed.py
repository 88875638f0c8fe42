"""How long the as-published comparison of the five models takes, against scikit-learn's defaults one after the other.

    python -m tests.benchmarks.training_speed FOLDER [--pairs N]

FOLDER holds the published pair. Both sides fit and score the same pipelines in the same order, N times in turn; the
medians and the median of the ratios go to results/training_speed.json.
"""

from statistics import median

from commands import run_command
from tests.benchmarks.results import make_row, parse_arguments, publish_result, time_work
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData, load_wines
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


def main() -> int:
    """Time both sides in turn, print, write."""
    arguments = parse_arguments(__doc__, "folder", pairs=5)
    data = load_wines(str(arguments.folder), SEED, arguments.folder, "")
    compare_ours(data)  # the first run pays for imports and threads
    ours, defaults, ratios = [], [], []
    for _ in range(arguments.pairs):
        ours.append(time_work(lambda: compare_ours(data)))
        defaults.append(time_work(lambda: compare_with_defaults(data)))
        ratios.append(ours[-1] / defaults[-1])
    spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    rows = [
        make_row("this project, all cores (median)", "", f"{median(ours):.1f} s"),
        make_row("scikit-learn's defaults, one after the other (median)", "", f"{median(defaults):.1f} s"),
        make_row(f"ratio (median of {len(ratios)} pairs; lowest to highest)", "<= 0.65", spread),
    ]
    return publish_result("training_speed", "training_speed FOLDER", rows)


if __name__ == "__main__":
    run_command(main)
