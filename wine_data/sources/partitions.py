"""Wines in many files that need not fit into memory together: each file is a partition and is read separately.

A partition is a CSV or Parquet file with the columns of a train file. A wine's content alone decides between train and
holdout (split.py). A wine in several rows counts several times, always in the same part.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from commands import NotThereError
from wine_data.schema import FEATURES, IDENTITY, TARGET
from wine_data.sources.load import fingerprint_wines, require_grades
from wine_data.split import Split, divide_wines, hash_to_unit
from wine_data.table.wines import read_wines

SUFFIXES = (".csv", ".parquet")
SAMPLE = 50_000  # wines in the sample that describes all of them
LOT = "lot"
NUMBERS = {**dict.fromkeys(FEATURES, "float32"), TARGET: "float32", LOT: "float64"}  # XGBoost also stores float32


@dataclass(frozen=True)
class Partitions:
    """Wines in files: a fingerprint of their content, their number, their grades, and a divided sample."""

    files: tuple[Path, ...]
    fingerprint: str
    count: int
    grades: tuple[int, ...]
    sample: Split

    @property
    def source(self) -> str:
        """Where they come from, for a person to read."""
        return f"folder {self.files[0].parent.name} ({len(self.files)} files, {self.count:,} rows)"

    @property
    def rows(self) -> dict[str, int]:
        """How many there are."""
        return {"rows": self.count}


def read_partitions(folder: Path, map_fn: Callable[..., Iterable[Any]] = map) -> Partitions:
    """Read every file of a folder once, and describe them. `map_fn` reads the files, here or on a cluster.

    Raises:
        NotThereError: the folder does not exist, or has no file of wines.
        BadInputError: a file does not contain wines (names file, column and row), or there are too few grades.
    """
    files = tuple(sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES))
    if not files:
        raise NotThereError(f"{folder} holds no file that ends in {' or '.join(SUFFIXES)}")
    read = map_fn(_read_partition, files, [SAMPLE // len(files)] * len(files))
    fingerprints, counts, grades, samples = zip(*read, strict=True)
    require_grades(set().union(*grades), f"folder {folder.name}")
    fingerprint = hashlib.sha256("".join(fingerprints).encode()).hexdigest()
    train, holdout = divide_wines(pd.concat(samples, ignore_index=True))
    return Partitions(files, fingerprint, sum(counts), tuple(sorted(set().union(*grades))), Split(train, holdout, []))


def read_numbers(path: Path) -> pd.DataFrame:
    """Read a partition as NUMBERS: the features, the grade, and the number that decides train or holdout.

    A wine with a blank in IDENTITY is left out.
    """
    wines = read_wines(path)
    wines = wines[wines[list(IDENTITY)].notna().all(axis="columns")]
    return wines.assign(**{LOT: hash_to_unit(wines)})[list(NUMBERS)].astype(NUMBERS)


def _read_partition(path: Path, share: int) -> tuple[str, int, set[int], pd.DataFrame]:
    """The fingerprint, the number of wines, their grades and a sample of them."""
    wines = read_wines(path)
    some = np.linspace(0, len(wines) - 1, min(share, len(wines))).astype(int)
    return fingerprint_wines(wines), len(wines), set(wines[TARGET].tolist()), wines.iloc[some]
