"""Where the wines come from: one function, whatever the source.

WINE_DATA=auto|twin|<folder>
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from commands import BadInputError
from settings import ROOT
from wine_data.pair import publish_pair
from wine_data.reader import read_wines
from wine_data.schema import FEATURES, TARGET
from wine_data.twin import sample_twin

TRAIN_FILE, VALIDATION_FILE = "train_wine_data.csv", "test_wine_data.csv"
DROP_FOLDER = ROOT / "wine_data"


@dataclass(frozen=True)
class WineData:
    """The published pair of tables, with where it came from and a fingerprint of its content."""

    train: pd.DataFrame
    validation: pd.DataFrame
    source: str
    fingerprint: str


def load_wines(source: str, seed: int) -> WineData:
    """Load the pair from a source named as in WINE_DATA.

    `auto` takes the files dropped into wine_data/ where they are, else the twin. `seed` decides
    what the twin draws.

    Raises:
        BadInputError: the source is unknown, or its files cannot be read.
    """
    if source == "auto":
        source = str(DROP_FOLDER) if _holds_pair(DROP_FOLDER) else "twin"
    if source == "twin":
        return _describe(*publish_pair(sample_twin(5320, seed), seed), f"twin (synthetic, seed {seed})")
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise BadInputError(f"WINE_DATA={source} is neither auto, twin nor a folder")
    return _describe(*read_folder(folder), f"folder {folder.name}")


def read_folder(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the train and the validation file of a folder."""
    if not _holds_pair(folder):
        raise BadInputError(f"{folder} lacks {TRAIN_FILE} or {VALIDATION_FILE}; see wine_data/README.md")
    return read_wines(folder / TRAIN_FILE), read_wines(folder / VALIDATION_FILE)


def fingerprint_wines(*tables: pd.DataFrame) -> str:
    """SHA-256 of what the tables say: the same wines in the same order give the same fingerprint from any file."""
    digest = hashlib.sha256()
    for table in tables:
        numbers = table[[*FEATURES, TARGET]].to_numpy("float64")
        digest.update(f"{numbers.shape}".encode())
        digest.update(np.ascontiguousarray(numbers, dtype="<f8").tobytes())
    return digest.hexdigest()


def _holds_pair(folder: Path) -> bool:
    return (folder / TRAIN_FILE).is_file() and (folder / VALIDATION_FILE).is_file()


def _describe(train: pd.DataFrame, validation: pd.DataFrame, source: str) -> WineData:
    return WineData(train, validation, source, fingerprint_wines(train, validation))
