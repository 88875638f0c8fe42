"""Batch scoring beside the bare model on the same cores, and its memory as files grow.

    python -m tests.benchmarks.batch_speed [--millions N …]

The bare model is this project's OrdinalForestClassifier, and for the first number of wines a blend with the same forest
too. It is asked for the probabilities of as many wines of the twin in memory, with as many jobs as there are cores.
Batch scoring is the command, from its start to its end: it reads, checks and scores them and writes the answers. Each
pair runs one right after the other. Memory is the command's peak, looked at ten times a second.

Prints the figures and writes them to results/batch_speed.json.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import run_command
from settings import ROOT, load_settings
from tests.benchmarks.results import parse_arguments, publish_result, time_work
from wine_data.schema import MEASUREMENTS, TARGET, TYPE, feature_frame
from wine_data.sources.load import load_wines

if TYPE_CHECKING:
    import pandas as pd

FOREST, BLEND = "forest", "blend"
PIECE = 500_000  # wines that are made at once, and asked of the bare model at once
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def fit_model(kind: str, folder: Path, cores: int) -> Any:
    """Fit the forest, or the blend with it, on the twin's training side, write its bundle, and return it."""
    from tests.wines import make_bundle
    from wine_data.split import split_wines
    from wine_quality_training.bundle.bundle import select_bundle
    from wine_quality_training.estimators import blend_grades
    from wine_quality_training.evaluate import LEAK_FREE, Evaluation
    from wine_quality_training.models import make_model

    data = load_wines("twin", 42, folder, "")
    split = split_wines(data.train, data.validation, folds=5, seed=42)
    model = make_model("OrdinalForestClassifier", seed=42)
    if kind == BLEND:
        model.set_params(model__classifier=blend_grades(model.named_steps["model"].classifier))
    model.fit(feature_frame(split.train), split.train[TARGET])
    select_bundle(
        make_bundle(folder / "models", Evaluation(kind, LEAK_FREE, model, (), {}), data, split.train, compiles=False)
    )
    forest = model.named_steps["model"].classifier_
    (forest.estimators_[0] if kind == BLEND else forest).n_jobs = cores
    return model


def write_wines(path: Path, wines: "pd.DataFrame", millions: int) -> None:
    """Write so many million wines as CSV or Parquet, in row groups of 250,000."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    table = pa.Table.from_pandas(wines[[TYPE, *MEASUREMENTS]], preserve_index=False)
    is_csv = path.suffix == ".csv"
    with csv.CSVWriter(path, table.schema) if is_csv else parquet.ParquetWriter(path, table.schema) as writer:
        for _ in range(millions * 1_000_000 // PIECE):
            writer.write_table(table, *(() if is_csv else (250_000,)))


def time_bare(pipeline: Any, wines: "pd.DataFrame", millions: int) -> float:
    """Seconds that the bare model takes for so many million wines in memory."""
    features, times = feature_frame(wines), millions * 1_000_000 // PIECE
    return sum(time_work(lambda: pipeline.predict_proba(features)) for _ in range(times))


def time_batch(path: Path, folder: Path, cores: int) -> tuple[float, float]:
    """Seconds and megabytes of the command, from its start to its end, imports and all."""
    answers = folder / "answers"
    shutil.rmtree(answers, ignore_errors=True)
    settings = {"SERVING_MODELS": folder / "models", "BATCH_ANSWERS": answers, "BATCH_CORES": cores}
    environment = os.environ | {f"WINE_{name}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "deployment.batch", str(path)]
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, measure_memory(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"batch scoring of {path.name} ended with {process.returncode}")
    return time.perf_counter() - start, peak


def measure_memory(session: int) -> float:
    """Megabytes of all processes of a session; pages that they share count for each."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[3]) == session:
            total += int(fields[21]) * PAGE_MB
    return total


def time_pair(pipeline: Any, wines: "pd.DataFrame", path: Path, millions: int, cores: int) -> dict[str, str]:
    """A row of the table: the bare model and batch scoring on as many wines."""
    write_wines(path, wines, millions)
    bare = time_bare(pipeline, wines, millions)
    seconds, megabytes = time_batch(path, path.parent, cores)
    path.unlink()
    return {
        "wines": f"{millions} million", "file": path.suffix[1:], "bare model, wines/s": f"{millions * 1e6 / bare:,.0f}",
        "batch scoring, wines/s": f"{millions * 1e6 / seconds:,.0f}",
        "ratio (goal >= 0.9)": f"{bare / seconds:.2f}", "memory": f"{megabytes:,.0f} MB",
    }  # fmt: skip


def main() -> int:
    """Make the wines and the model, time both, print, write."""
    sizes, cores = parse_arguments(__doc__, millions=[1, 10]).millions, load_settings().batch_cores

    from wine_data.twin.sample import sample_twin

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wines = sample_twin(PIECE, seed=5)
        for model, millions in ((FOREST, sizes), (BLEND, sizes[:1])):
            pipeline = fit_model(model, folder, cores)
            for number, kind in ((number, kind) for number in millions for kind in ("parquet", "csv")):
                rows.append({"model": model} | time_pair(pipeline, wines, folder / f"wines.{kind}", number, cores))
                print(rows[-1])
    return publish_result("batch_speed", f"batch_speed --millions {' '.join(map(str, sizes))}", rows)


if __name__ == "__main__":
    run_command(main)
