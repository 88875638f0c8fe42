"""Batch scoring beside the bare model on the same cores, and its memory as files grow.

    python -m tests.benchmarks.batch_speed [--millions 1 10]

The bare model is RandomForestClassifier(100), as published, asked for the probabilities of as many wines of the twin in
memory, with as many jobs as there are cores. Batch scoring is the command, from its start to its end: it reads, checks
and scores them and writes the answers. Each pair runs one right after the other. Memory is the command's peak, looked
at ten times a second.

Prints the figures and writes them to results/batch_speed.json.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import DONE, run_command
from settings import ROOT, load_settings
from tests.benchmarks.results import render_result, write_result
from wine_data.schema import MEASUREMENTS, TYPE, feature_frame
from wine_data.sources.load import load_wines
from wine_quality_training.bundle.files import NOT_COMPILED, pickle_model, select_bundle, write_bundle
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import make_model

if TYPE_CHECKING:
    import pandas as pd

PIECE = 500_000  # wines that are made at once, and asked of the bare model at once
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def make_models(folder: Path) -> Any:
    """Fit the forest on the twin's training side, write its bundle, and return it."""
    from wine_data.split import split_wines
    from wine_quality_training.bundle.description import describe_model

    data = load_wines("twin", 42, folder, "http://127.0.0.1:1/")
    split = split_wines(data.train, data.validation, folds=5, seed=42)
    evaluation = evaluate_leak_free("RandomForestClassifier", make_model("RandomForestClassifier", seed=42), split)
    metadata = describe_model(evaluation, data, split.train, name="wine-quality", version="1", run_id="benchmark")
    select_bundle(write_bundle(folder / "models", pickle_model(evaluation.pipeline), metadata, NOT_COMPILED))
    return evaluation.pipeline


def write_wines(path: Path, wines: "pd.DataFrame", millions: int) -> None:
    """Write so many million wines as CSV or Parquet, in row groups of 250,000."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    table = pa.Table.from_pandas(wines[[TYPE, *MEASUREMENTS]], preserve_index=False)
    is_csv = path.suffix == ".csv"
    with csv.CSVWriter(path, table.schema) if is_csv else parquet.ParquetWriter(path, table.schema) as writer:
        for _ in range(millions * 1_000_000 // PIECE):
            writer.write_table(table, *(() if is_csv else (250_000,)))


def time_bare(pipeline: Any, wines: "pd.DataFrame", millions: int, cores: int) -> float:
    """Seconds that the bare model takes for so many million wines in memory."""
    pipeline[-1].n_jobs = cores
    features = feature_frame(wines)
    start = time.perf_counter()
    for _ in range(millions * 1_000_000 // PIECE):
        pipeline.predict_proba(features)
    return time.perf_counter() - start


def time_batch(path: Path, folder: Path, cores: int) -> tuple[float, float]:
    """Seconds and megabytes of the command, from its start to its end, imports and all."""
    answers = folder / "answers"
    shutil.rmtree(answers, ignore_errors=True)
    places = {"WINE_SERVING_MODELS": str(folder / "models"), "WINE_BATCH_ANSWERS": str(answers)}
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "deployment.batch", path],
        cwd=ROOT,
        env=os.environ | places | {"WINE_BATCH_CORES": str(cores)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
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


def main() -> int:
    """Make the wines and the model, time both, print, write."""
    parser = argparse.ArgumentParser(description="Time batch scoring beside the bare model.")
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10], help="wines of a file, in millions")
    sizes, cores = parser.parse_args().millions, load_settings().batch_cores

    from wine_data.twin.sample import sample_twin

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pipeline, wines = make_models(folder), sample_twin(PIECE, seed=5)
        for millions in sizes:
            for suffix in (".parquet", ".csv"):
                path = folder / f"wines{suffix}"
                write_wines(path, wines, millions)
                bare = time_bare(pipeline, wines, millions, cores)
                seconds, megabytes = time_batch(path, folder, cores)
                rows.append(
                    {
                        "wines": f"{millions} million", "file": suffix.removeprefix("."),
                        "bare model, wines/s": f"{millions * 1e6 / bare:,.0f}",
                        "batch scoring, wines/s": f"{millions * 1e6 / seconds:,.0f}",
                        "ratio (goal >= 0.9)": f"{bare / seconds:.2f}", "memory": f"{megabytes:,.0f} MB",
                    }
                )  # fmt: skip
                print(rows[-1])
                path.unlink()
    command = f"python -m tests.benchmarks.batch_speed --millions {' '.join(map(str, sizes))}"
    write_result("batch_speed", command, rows)
    print(render_result("batch_speed"))
    print("\nNext: copy the table into docs/benchmarks.md; a test compares them")
    return DONE


if __name__ == "__main__":
    run_command(main)
