"""The wines of one run on disk, named by their fingerprint, so that tasks pass on a name and not a table.

<snapshots>/<fingerprint>/train.parquet, validation.parquet, about.json
"""

import errno
import json
import tempfile
from pathlib import Path

import pandas as pd

from atomic_files import write_atomically
from commands import BadInputError, NotThereError, unreadable
from wine_data.schema import ANSWERED, FEATURES, ROWS, TARGET, TYPE
from wine_data.sources.load import WineData, fingerprint_wines

TABLES = ("train", "validation")


def keep_snapshot(data: WineData, snapshots: Path) -> Path:
    """Write the wines under their fingerprint, atomically, if they are not there yet; return the folder.

    The same wines may later come from another source; about.json names the last one.
    """
    folder = snapshots / data.fingerprint
    about = {"source": data.source, "note": data.note, "labelled": data.labelled}
    described = json.dumps(about, indent=2) + "\n"
    if folder.is_dir():
        write_atomically(folder / "about.json", described)
        return folder
    snapshots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=snapshots) as partial:
        for name in TABLES:
            getattr(data, name).to_parquet(Path(partial, f"{name}.parquet"))
        write_atomically(Path(partial, "about.json"), described)
        try:
            Path(partial).rename(folder)
        except OSError:
            if not folder.is_dir():  # if it exists, another run has just written the same wines
                raise
    return folder


def read_snapshot(snapshots: Path, fingerprint: str) -> WineData:
    """Read wines by their fingerprint.

    Raises NotThereError if no run kept them or the disk fails, BadInputError if they or the schema have changed since.
    """
    folder = snapshots / fingerprint
    if not folder.is_dir():
        raise NotThereError(f"no {ROWS} with the fingerprint {fingerprint} were kept in {snapshots}: run make pipeline")
    try:
        train, validation = (pd.read_parquet(folder / f"{name}.parquet") for name in TABLES)
        _require_columns(train, folder)
        about = json.loads((folder / "about.json").read_text())
        found = fingerprint_wines(train, validation)
        data = WineData(train, validation, about["source"], found, about["note"], about.get("labelled", ""))
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            raise unreadable(folder, error, "folder") from error
        raise BadInputError(f"{folder} cannot be read ({error}): remove it, and run make pipeline") from error
    if data.fingerprint != fingerprint:
        raise BadInputError(f"{folder} was changed since it was kept: remove it, and run make pipeline")
    return data


def _require_columns(wines: pd.DataFrame, folder: Path) -> None:
    """Refuse wines from before a change of the schema: models fitted on them have the old columns too."""
    odd = sorted({*FEATURES, TYPE, TARGET}.symmetric_difference(wines.columns) - {ANSWERED})
    if odd:
        raise BadInputError(
            f"{folder} was kept before the schema changed ({', '.join(odd)}), and so were the models of the registry: "
            "new features need new stores, see docs/your_own.md"
        )
