"""Score files of wines with the model that serves: answers in one CSV file, refused rows with reasons in another.

    python -m deployment.batch [FILE ...]

scores the files, or the CSV files of WINE_BATCH_WINES, into WINE_BATCH_ANSWERS:

    <file>.<version>.<digest>.csv            row, request_id, prediction, expected_quality, a probability a grade, model
    <file>.<version>.<digest>.refused.csv    row and reason of every row that is no wine

The digest is of the file's content and the model's run, so a file that is scored by this model already is left
alone, and one that changed, or that another champion is to score, is not.
"""

import argparse
import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from commands import DONE, BadInputError, NotThereError, run_command
from deployment.engine import Engine, load_engine_for_files
from settings import load_settings
from wine_data.reader import read_cells
from wine_data.schema import FEATURES, MEASUREMENTS, RED, TYPE, TYPES, WineQuality, feature_array, feature_values


@dataclass(frozen=True)
class ScoredFile:
    """What became of one file; `refused` is None where every row was a wine."""

    wines: Path
    answers: Path
    refused: Path | None
    scored: int
    refusals: int
    version: str
    new: bool

    def sentence(self) -> str:
        """What became of it, for a person to read."""
        if not self.new:
            return f"{self.wines.name}: scored by version {self.version} before, see {self.answers}"
        refused = f", {self.refusals:,} refused, see {self.refused}" if self.refused else ""
        return f"{self.wines.name}: {self.scored:,} wines scored by version {self.version} into {self.answers}{refused}"


def list_files(folder: Path) -> list[Path]:
    """The CSV files that wait in a folder, by name; none where there is no folder."""
    return sorted(path for path in folder.glob("*.csv") if path.is_file())


def score_file(wines: Path, models: Path, answers: Path) -> ScoredFile:
    """Score one file with the bundle that serves, and write its answers whole or not at all.

    Args:
        wines: a CSV file with the eleven measurements and the colour, as `type` or `red_wine`; it may hold more.
        models: the folder of serving bundles.
        answers: the folder that the answers go to; it is made if need be.

    Raises:
        BadInputError: it is no file of wines: a column is missing, or nothing in it can be read.
        NotThereError: there is no such file, or no model yet.
    """
    if not wines.is_file():
        raise NotThereError(f"there is no file {wines} to score")
    engine = load_engine_for_files(models)
    digest = hashlib.sha256(wines.read_bytes() + engine.facts.run_id.encode()).hexdigest()[:12]
    answered = answers / f"{wines.stem}.{engine.facts.version}.{digest}.csv"
    refused = answered.with_suffix(".refused.csv")
    new = not answered.is_file()
    if new:
        table, refusals = score_wines(engine, read_batch(wines), digest)
        answers.mkdir(parents=True, exist_ok=True)
        if not refusals.empty:
            _write_whole(refused, refusals)
        _write_whole(answered, table)  # last: where it is, all is there
    there = refused if refused.is_file() else None
    counts = _count_rows(answered), _count_rows(there) if there else 0
    return ScoredFile(wines, answered, there, *counts, engine.facts.version, new)


def read_batch(path: Path) -> pd.DataFrame:
    """Read a file of wines as text, laid out as FEATURES; the index is the row in the file, its header row 1.

    Raises:
        BadInputError: a column is missing, or there twice.
    """
    cells = read_cells(path)
    repeated = [str(name) for name in cells.columns[cells.columns.duplicated()].unique()]
    if repeated:
        raise BadInputError(f"{path} has the column {', '.join(repeated)} more than once: keep the one that is meant")
    if TYPE in cells and RED not in cells:
        colours = cells[TYPE].str.strip().str.lower()
        cells[RED] = colours.map({name: str(int(name == "red")) for name in TYPES}).where(cells[TYPE].notna())
    missing = [name for name in MEASUREMENTS if name not in cells]
    missing += [] if RED in cells else [f"{TYPE} (or {RED})"]
    if missing:
        raise BadInputError(f"{path} lacks the column {', '.join(missing)}; found {', '.join(cells.columns)}")
    return cells.loc[:, list(FEATURES)].set_axis(cells.index + 2)


def score_wines(engine: Engine, cells: pd.DataFrame, batch: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the rows that are wines; return a table of answers and one of refused rows with reasons.

    A request id is made from the batch, the row and the model, so the same question has the same id.
    """
    wines, rows, refusals = [], [], []
    for row, values in zip(cells.index, cells.to_dict("records"), strict=True):
        given = {str(name): value for name, value in values.items() if not pd.isna(value)}
        try:
            wines.append(WineQuality.model_validate_strings(given))
            rows.append(int(row))
        except ValidationError as error:
            reasons = [f"{problem['loc'][0]}: {_explain(dict(problem))}" for problem in error.errors()]
            refusals.append({"row": int(row), "reason": "; ".join(reasons)})
    return _lay_out_answers(engine, wines, rows, batch), pd.DataFrame(refusals, columns=["row", "reason"])


def _lay_out_answers(engine: Engine, wines: list[WineQuality], rows: list[int], batch: str) -> pd.DataFrame:
    facts = engine.facts
    shape = (len(wines), len(engine.grades))
    probabilities = engine.predict_probabilities(feature_array(wines)) if wines else np.empty(shape)
    ids = [uuid.uuid5(uuid.NAMESPACE_OID, f"{batch}/{row}/{facts.run_id}").hex for row in rows]
    table = pd.DataFrame({"row": rows, "request_id": ids})
    table["prediction"] = np.array(engine.grades)[probabilities.argmax(axis=1)] if wines else []
    table["expected_quality"] = probabilities @ np.array(engine.grades, dtype="float64")
    for place, grade in enumerate(engine.grades):
        table[f"probability_{grade}"] = probabilities[:, place]
    warnings = ["; ".join(engine.list_warnings(feature_values(wine))) for wine in wines]
    return table.assign(warnings=warnings, model=facts.name, version=facts.version, run_id=facts.run_id)


def _explain(problem: dict[str, object]) -> str:
    return "there is no value" if problem["type"] == "missing" else f"{problem['msg']}, not {problem['input']}"


def _count_rows(path: Path) -> int:
    with path.open() as file:
        return sum(1 for _ in file) - 1


def _write_whole(path: Path, table: pd.DataFrame) -> None:
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        table.to_csv(partial, index=False)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    """Score files and say where the answers are."""
    parser = argparse.ArgumentParser(description="Score files of wines with the model that serves.")
    parser.add_argument("files", nargs="*", type=Path, help="CSV files; those of WINE_BATCH_WINES where left out")
    settings = load_settings()
    files = parser.parse_args().files or list_files(settings.batch_wines)
    for path in files:
        print(score_file(path, settings.serving_models, settings.batch_answers).sentence())
    if not files:
        print(f"Nothing to score: put CSV files into {settings.batch_wines}")
    return DONE


if __name__ == "__main__":
    run_command(main)
