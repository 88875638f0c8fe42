"""The registry as one file, for machines that share nothing, such as the runs of a workflow.

    python -m experiment_tracking.archive pack|unpack FILE.tar.gz

It contains the tracking store with every run, the serving bundles, and the pickles of the challenger and of every
version that a rollback can return to. It leaves out the pickles of other runs: five models take 100 MB per run.
Unpack only what you packed. A pickle can run any code when it is loaded, and the digests are in the same file.
"""

import argparse
import gzip
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from contextlib import closing
from pathlib import Path

from commands import DONE, BadInputError, NotThereError, run_command
from settings import Settings, load_settings

DATABASE, ARTIFACTS, BUNDLES = "mlflow.db", "mlartifacts", "serving_models"
PICKLES = f"{ARTIFACTS}/models"  # where MLflow keeps its models, one folder per model


def pack_registry(file: Path, places: dict[str, Path]) -> list[str]:
    """Write the registry into a file; return the numbers of the versions whose pickles it contains."""
    if not places[DATABASE].is_file():
        raise NotThereError(f"there is no {places[DATABASE]}: run make pipeline")

    from mlflow import MlflowClient

    from experiment_tracking.registry.promotion import list_champions
    from experiment_tracking.registry.versions import CHALLENGER, MODEL, list_versions
    from experiment_tracking.runs.store import open_store

    open_store(f"sqlite:///{places[DATABASE]}", places[ARTIFACTS])
    champions = list_champions()
    kept = [
        version.number for version in list_versions() if version.number in champions or CHALLENGER in version.aliases
    ]
    folders = [Path(MlflowClient().get_model_version_download_uri(MODEL, number)).parent.name for number in kept]

    def choose(part: tarfile.TarInfo) -> tarfile.TarInfo | None:
        path = Path(part.name)
        return None if str(path.parent) == PICKLES and path.name not in folders else part

    with tempfile.TemporaryDirectory() as folder, tarfile.open(file, "w:gz", compresslevel=6) as archive:
        copy = Path(folder) / DATABASE
        with closing(sqlite3.connect(places[DATABASE])) as database, closing(sqlite3.connect(copy)) as target:
            database.backup(target)  # safe while others write to the database
        archive.add(copy, DATABASE)
        archive.add(places[ARTIFACTS], ARTIFACTS, filter=choose)
        if places[BUNDLES].is_dir():
            archive.add(places[BUNDLES], BUNDLES)
    return kept


def unpack_registry(file: Path, places: dict[str, Path]) -> None:
    """Move the registry of a file to its places. Raises BadInputError if one of them already exists."""
    if not hasattr(tarfile, "data_filter"):  # the filter prevents writing outside the folder
        raise NotThereError("unpacking safely needs Python 3.11.4 or newer")
    taken = [str(place) for place in places.values() if place.exists()]
    if taken:
        raise BadInputError(
            f"there is a registry here already ({', '.join(taken)}): remove it with make reset, then unpack"
        )
    if not file.is_file():
        raise NotThereError(f"there is no file {file}")
    places[DATABASE].parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places[DATABASE].parent) as folder:
        try:
            with tarfile.open(file) as archive:
                archive.extractall(folder, filter="data")
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise BadInputError(f"{file} cannot be unpacked: {error}") from error
        if not (Path(folder) / DATABASE).is_file():
            raise BadInputError(f"{file} holds no {DATABASE}: it was not packed by this command")
        for name, place in places.items():
            if (Path(folder) / name).exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(Path(folder) / name, place)


def find_places(settings: Settings) -> dict[str, Path]:
    """The paths of the registry's parts. Raises BadInputError if they are on servers, which need no file."""
    from sqlalchemy.engine import make_url

    url, artifacts = make_url(settings.mlflow_uri), settings.mlflow_artifacts
    if url.get_backend_name() != "sqlite" or not url.database or not isinstance(artifacts, Path):
        raise BadInputError("only a store in files can be packed; a store on a server is shared by its address")
    return {DATABASE: Path(url.database), ARTIFACTS: artifacts, BUNDLES: settings.serving_models}


def main() -> int:
    """Pack or unpack the registry."""
    parser = argparse.ArgumentParser(description="Pack the registry into one file, or unpack it on another machine.")
    parser.add_argument("order", choices=["pack", "unpack"])
    parser.add_argument("file", type=Path, help="the archive, a .tar.gz")
    arguments, places = parser.parse_args(), find_places(load_settings())
    if arguments.order == "pack":
        versions = pack_registry(arguments.file, places)
        print(f"{arguments.file} has the registry, with the models of version {', '.join(versions) or 'none'}")
        print(f"Next, on the other machine: python -m experiment_tracking.archive unpack {arguments.file.name}")
    else:
        unpack_registry(arguments.file, places)
        print(f"The registry of {arguments.file} is in {places[DATABASE]}")
        print("Next: python -m experiment_tracking.registry list")
    return DONE


if __name__ == "__main__":
    run_command(main)
