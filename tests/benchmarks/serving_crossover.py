"""From how many wines at once on the pickle answers faster than the compiled form.

    python -m tests.benchmarks.serving_crossover FOLDER

The model is the RandomForestClassifier of 100 trees as published, both forms on one core, in turn; medians.
The figures go to results/serving_crossover.json; deployment/predictor.py holds the crossover that follows.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from commands import DONE, run_command
from settings import load_settings
from tests.benchmarks.results import render_result, write_result
from wine_data.schema import feature_frame
from wine_data.sources.load import load_wines

if TYPE_CHECKING:
    from deployment.predictor import PickledModel
    from wine_quality_training.bundle.compiled import CompiledModel

SIZES = (1, 10, 100, 250, 500, 1_000, 2_000, 10_000)
ROUNDS = 7


def measure_both(compiled: "CompiledModel", pickled: "PickledModel", wines: np.ndarray) -> tuple[float, float]:
    """Median milliseconds of both forms for the same wines, asked in turn."""
    times = []
    for _ in range(max(ROUNDS, 1_000 // len(wines))):
        start = time.perf_counter()
        compiled.predict_probabilities(wines)
        between = time.perf_counter()
        pickled.predict_probabilities(wines)
        times.append((between - start, time.perf_counter() - between))
    fast, slow = np.median(times, axis=0) * 1000
    return float(fast), float(slow)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Compiled form against pickle, by the number of wines at once.")
    parser.add_argument("source", nargs="?", help="a folder with the two files, or another word of WINE_DATA")
    source, settings = parser.parse_args().source, load_settings()

    from deployment.predictor import CROSSOVER, PickledModel
    from tests.benchmarks.serving_rounds import SEED, export_model, fit_as_published
    from wine_data.twin.sample import sample_twin
    from wine_quality_training.bundle.compiled import CompiledModel
    from wine_quality_training.bundle.files import load_bundle

    data = load_wines(source or settings.data, SEED, settings.downloads, settings.uci_url)
    with tempfile.TemporaryDirectory() as folder:
        bundle = load_bundle(export_model(Path(folder), data, fit_as_published(data)))
    assert bundle.compiled is not None
    compiled, pickled = CompiledModel(bundle.compiled), PickledModel(bundle.pipeline)
    wines = feature_frame(sample_twin(max(SIZES), SEED)).to_numpy()
    rows = []
    for size in SIZES:
        fast, slow = measure_both(compiled, pickled, wines[:size])
        rows.append({"wines at once": f"{size:,}", "compiled": f"{fast:.2f} ms", "pickle": f"{slow:.2f} ms"})
    path = write_result("serving_crossover", "python -m tests.benchmarks.serving_crossover FOLDER", rows)
    print(f"{render_result('serving_crossover')}\n\nThe engine changes over at {CROSSOVER:,}. Written to {path.name}.")
    print("Next: copy the table into docs/benchmarks.md; a test compares them")
    return DONE


if __name__ == "__main__":
    run_command(main)
