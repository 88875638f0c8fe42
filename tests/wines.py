"""Wines that tests work on, and the serving bundles of models that were fitted on them."""

from pathlib import Path

import pandas as pd

from wine_data.sources.load import TRAIN_FILE, VALIDATION_FILE, WineData, load_wines
from wine_data.table.wines import COLUMNS
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.bundle import NOT_COMPILED, pickle_model, write_bundle
from wine_quality_training.bundle.compilation import compile_model
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.evaluate import Evaluation

NOWHERE = "http://127.0.0.1:1/"  # nothing listens on port 1


def load_as_default(source: str) -> WineData:
    """Load a source with the default seed, and no network to turn to."""
    return load_wines(source, seed=42, downloads=Path("nowhere"), uci_url=NOWHERE)


def write_few_wines(folder: Path, wines: int = 1_500) -> Path:
    """Write a pair of so many distinct wines: all to validate on, and twice as many draws of them to train on."""
    originals = sample_twin(wines, seed=1)[list(COLUMNS)]
    validation = originals.assign(pH=originals["pH"].where(originals.index >= 10))
    folder.mkdir(parents=True, exist_ok=True)
    originals.sample(2 * wines, replace=True, random_state=1).to_csv(folder / TRAIN_FILE, index=False)
    validation.to_csv(folder / VALIDATION_FILE, index=False)
    return folder


def make_bundle(
    models: Path, evaluation: Evaluation, data: WineData, wines: pd.DataFrame, version: str = "1", compiles: bool = True
) -> Path:
    """Write the serving bundle of a model that was fitted on these wines."""
    named = {"name": "wine-quality", "version": version, "run_id": f"run{version}"}
    metadata = describe_model(evaluation, data, wines, **named)
    compiled = compile_model(evaluation.pipeline, metadata) if compiles else NOT_COMPILED
    return write_bundle(models, pickle_model(evaluation.pipeline), metadata, compiled)
