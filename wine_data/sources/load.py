"""Load the wines from a source: WINE_DATA=auto|uci|kaggle|twin|<folder>.

`auto` uses the first available source: files put into wine_data/, the originals from UCI, the synthetic twin.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from commands import BadInputError, NotThereError
from settings import ROOT
from wine_data.schema import FEATURES, GRADES, KINDS, MEASUREMENTS, ROWS, TARGET, TYPE

if TYPE_CHECKING:  # each source imports its own libraries, so that a command's --help is fast
    import pandas as pd

TRAIN_FILE, VALIDATION_FILE = "train_wine_data.csv", "test_wine_data.csv"
PAIR_FILES = (TRAIN_FILE, VALIDATION_FILE)
ORIGINALS = {"red": "winequality-red.csv", "white": "winequality-white.csv"}
DROP_FOLDER = ROOT / "wine_data"
AUTO_SECONDS = 5.0  # how long `auto` waits for UCI to answer
FEWEST_GRADES = 3
DISTINCT_WINES = 5320  # in the UCI files; the twin has as many

Pair = tuple["pd.DataFrame", "pd.DataFrame"]


@dataclass(frozen=True)
class WineData:
    """The train and the validation file, their source and a fingerprint of their content.

    `note` says why `auto` chose this source; `labelled` is the fingerprint of any labelled answers (labelled.py).
    """

    train: "pd.DataFrame"
    validation: "pd.DataFrame"
    source: str
    fingerprint: str
    note: str = ""
    labelled: str = ""

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each file has."""
        return {"train_rows": len(self.train), "validation_rows": len(self.validation)}

    def introduce(self) -> str:
        """The source, the fingerprint and the note, for a person to read."""
        return f"{ROWS.capitalize()} from {self.source}, fingerprint {self.fingerprint[:12]}\n{self.note}".rstrip()


class Origin(Protocol):
    """The record that runs and models keep of their wines: WineData, or Partitions, which need not fit into memory."""

    @property
    def source(self) -> str:
        """Where they come from, for a person to read."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of their content."""

    @property
    def rows(self) -> dict[str, int]:
        """How many rows there are."""


def load_wines(source: str, seed: int, downloads: Path, uci_url: str, wine_type: str = "") -> WineData:
    """Load the pair of files from a source named as in WINE_DATA; from one file, make a pair.

    `seed` decides the draws of the twin, and the pair that is made from the UCI originals or from one file. The
    originals are downloaded from `uci_url` and kept in `downloads`. `wine_type` is the colour of all wines in a file
    without a column for it.

    Raises:
        BadInputError: the source is unknown, or its files are not valid.
        NotThereError: a source that was given by name cannot be reached.
    """
    loaders: dict[str, Callable[[], WineData]] = {
        "auto": lambda: _load_first(seed, downloads, uci_url),
        "uci": lambda: _load_uci(seed, downloads, uci_url, timeout=30.0),
        "kaggle": lambda: _describe(_read_kaggle(), "kaggle"),
        "twin": lambda: _load_twin(seed),
    }
    if source in loaders:
        return loaders[source]()
    if source.startswith("s3://"):  # Prefect's block opens a bucket, and this package does not use Prefect
        raise BadInputError(
            f"this command cannot read a bucket: download the {ROWS} into a folder with "
            "python -m orchestration.s3 download s3://bucket/prefix, and set WINE_DATA to that folder"
        )
    path = Path(source).expanduser()
    if path.is_file():
        return _load_file(path, seed, wine_type)
    if not path.is_dir():
        if len(path.parts) > 1:  # so it is a path, and the file may appear later
            raise NotThereError(f"WINE_DATA={source}: there is no such file or folder")
        raise BadInputError(f"WINE_DATA={source} is no file or folder, and none of {', '.join(loaders)}")
    return _describe(read_folder(path, seed), f"folder {path.name}")


def read_folder(folder: Path, seed: int) -> Pair:
    """Read the pair of a folder, or make it from the two UCI originals in the folder."""
    from wine_data.sources.pair import publish_pair
    from wine_data.table.wines import read_wines

    if _holds(folder, PAIR_FILES):
        train, validation = (read_wines(folder / name) for name in PAIR_FILES)
        for name, table in zip(PAIR_FILES, (train, validation), strict=True):
            colours, needed = table[TYPE].unique(), " and ".join(KINDS)
            if len(colours) < len(KINDS):
                raise BadInputError(f"{folder / name} holds {colours[0]} {ROWS} only; both {needed} are needed")
        return train, validation
    if _holds(folder, ORIGINALS.values()):
        return publish_pair(read_originals(folder), seed)
    found = sorted(path.name for path in folder.iterdir() if path.is_file())
    raise NotThereError(
        f"{folder} holds neither {' and '.join(PAIR_FILES)} nor {' and '.join(ORIGINALS.values())}; found "
        f"{', '.join(found[:10]) or 'no file'}. For one file of {ROWS}: WINE_DATA={folder}/NAME"
    )


def read_originals(folder: Path) -> "pd.DataFrame":
    """Read the two UCI originals of a folder into one table, the red wines first."""
    import pandas as pd

    from wine_data.table.wines import read_wines

    tables = [read_wines(folder / name, wine_type) for wine_type, name in ORIGINALS.items()]
    return pd.concat(tables, ignore_index=True)


def fingerprint_wines(*tables: "pd.DataFrame") -> str:
    """SHA-256 of the tables' content: equal for the same wines in the same order, whatever the file format."""
    digest = hashlib.sha256()
    for table in tables:
        numbers = table[[*FEATURES, TARGET]].to_numpy("float64")
        digest.update(f"{numbers.shape}".encode())
        digest.update(np.ascontiguousarray(numbers, dtype="<f8").tobytes())
    return digest.hexdigest()


def _load_first(seed: int, downloads: Path, uci_url: str) -> WineData:
    if any((DROP_FOLDER / name).is_file() for name in (*PAIR_FILES, *ORIGINALS.values())):
        return _describe(read_folder(DROP_FOLDER, seed), f"folder {DROP_FOLDER.name}")
    try:
        return _load_uci(seed, downloads, uci_url, AUTO_SECONDS)
    except (NotThereError, BadInputError) as error:
        return _load_twin(seed, f"These {ROWS} are synthetic: there are none in {DROP_FOLDER.name}/, and {error}.")


def _load_file(path: Path, seed: int, wine_type: str) -> WineData:
    from wine_data.sources.pair import publish_pair
    from wine_data.table.wines import read_described_wines

    wines, unusual = read_described_wines(path, wine_type)
    return _describe(
        publish_pair(wines, seed),
        f"file {path.name} (pair made with seed {seed})",
        f"Read with: {unusual}" if unusual else "",
    )


def _load_uci(seed: int, downloads: Path, uci_url: str, timeout: float) -> WineData:
    from wine_data.sources.download import download_uci
    from wine_data.sources.pair import publish_pair

    download_uci(downloads, uci_url, timeout)
    return _describe(publish_pair(read_originals(downloads), seed), f"uci (pair made with seed {seed})")


def _load_twin(seed: int, note: str = "") -> WineData:
    from wine_data.sources.pair import publish_pair
    from wine_data.twin.sample import sample_twin

    pair = publish_pair(sample_twin(DISTINCT_WINES, seed), seed)
    return _describe(pair, f"twin (synthetic, seed {seed})", note)


def _read_kaggle() -> Pair:
    from wine_data.sources.download import download_kaggle
    from wine_data.table.wines import read_wines

    train, validation = download_kaggle()
    return read_wines(train), read_wines(validation)


def _holds(folder: Path, names: Iterable[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def require_grades(grades: Iterable[int], where: str) -> None:
    """Refuse fewer than three different grades, such as good or bad: models, measures and figures need a scale."""
    found = sorted(set(grades))
    if len(found) < FEWEST_GRADES:
        raise BadInputError(
            f"{where}, column {TARGET}: it holds only {' and '.join(map(str, found))}; grades from {GRADES[0]} to "
            f"{GRADES[-1]} are needed, {FEWEST_GRADES} of them at least"
        )


def _describe(pair: Pair, source: str, note: str = "") -> WineData:
    for name, table in zip(PAIR_FILES, pair, strict=True):
        for column in MEASUREMENTS:
            if table[column].isna().all():  # no mean exists to fill its blank cells
                raise BadInputError(f"{source}, {name}, column {column}: there is no value in any row")
        require_grades(table[TARGET].unique().tolist(), f"{source}, {name}")
    return WineData(*pair, source, fingerprint_wines(*pair), note)
