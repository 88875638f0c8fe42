"""Score one file of wines, part by part.

A manifest beside the predictions lists the parts, so that a killed run can resume where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from commands import BadInputError, NotThereError
from deployment.batch.chunks import Chunk, divide_file
from deployment.batch.job import Job, Options, load_predictor_once, score_chunk
from deployment.batch.storage import (
    Location,
    exists,
    find_name,
    is_folder,
    join,
    list_names,
    read_whole,
    write_whole,
)
from deployment.predictor import NO_MEDIANS
from executors import MapFunction
from wine_data.schema import ROWS
from wine_data.table.dialect import has_wine_suffix
from wine_quality_training.bundle.bundle import METADATA_FILE, find_current
from wine_quality_training.bundle.metadata import read_metadata

Show = Callable[[int, int], None]
PLAIN = Options()


@dataclass(frozen=True)
class Manifest:
    """The parts of a file and the result of scoring it; a resumed run reads it."""

    wines: str
    version: str
    run_id: str
    parts: tuple[Chunk, ...]  # the chunks; the JSON calls them parts
    done: bool = False
    scored: int = 0
    refused: int = 0


@dataclass(frozen=True)
class ScoredFile:
    """The result for one file: `new` if this run scored it, `description` of what is unusual about it."""

    job: Job
    manifest: Manifest
    new: bool
    description: str = ""

    @property
    def answers(self) -> Location:
        """The folder of the predictions."""
        return join(self.job.folder, "answers")

    @property
    def refused(self) -> Location | None:
        """The folder of the refused rows, with reasons; None if no row was refused."""
        return join(self.job.folder, "refused") if self.manifest.refused else None

    def sentence(self) -> str:
        """The result as a sentence."""
        done, name = self.manifest, self.manifest.wines
        if not self.new:
            return f"{name}: scored by version {done.version} before, see {self.answers}"
        read = f" ({self.description})" if self.description else ""
        refused = f", {done.refused:,} refused, see {self.refused}" if done.refused else ""
        return f"{name}{read}: {done.scored:,} {ROWS} scored by version {done.version} into {self.answers}{refused}"


def score_file(
    wines: Location, models: Path, answers: Location, map_fn: MapFunction = map, options: Options = PLAIN
) -> ScoredFile:
    """Score one file with the serving bundle, or resume a killed run.

    Args:
        wines: a table as text or Parquet with the eleven measurements and the colour; other columns are ignored.
        models: the folder of serving bundles.
        answers: the folder for the predictions, or s3://bucket/path; created if missing.
        map_fn: runs the chunks, as map_chunks does; map: here, one after the other.
        options: the colour of all wines, and explanations.

    Raises:
        BadInputError: it is not a file of wines (a column is missing, or nothing can be read), or the model is too
            old to explain predictions.
        NotThereError: the file does not exist, or there is no model yet.
    """
    bundle = find_current(models)
    metadata = read_metadata(bundle / METADATA_FILE)
    if options.explain and not metadata.profiles:
        raise BadInputError(NO_MEDIANS)
    layout = divide_file(wines, options.wine_type)
    chosen = options.wine_type + (" explained" if options.explain else "")
    digest = hashlib.sha256(f"{layout.sha} {metadata.run_id}{chosen}".encode()).hexdigest()[:12]
    name = find_name(wines).removesuffix(".gz")
    stem = name.rpartition(".")[0] or name
    job = Job(wines, bundle, join(answers, f"{stem}.{metadata.version}.{digest}"), digest, options)
    manifest = _read_manifest(job) or Manifest(find_name(wines), metadata.version, metadata.run_id, layout.chunks)
    new = not manifest.done
    if new:
        load_predictor_once(bundle)  # so a bad bundle leaves no folder, and threads find it loaded
        _write_manifest(job, manifest)
        counts = list(map_fn(partial(score_chunk, job), manifest.parts))
        scored, refused = (sum(column) for column in zip(*counts, strict=True))
        manifest = replace(manifest, done=True, scored=scored, refused=refused)
        _write_manifest(job, manifest)
    return ScoredFile(job, manifest, new, layout.description)


def map_chunks(executor: Executor, show: Show = lambda done, of: None) -> MapFunction:
    """Make a map that runs chunks on an executor and yields results as they are ready.

    Args:
        executor: runs the chunks.
        show: called after each chunk with the number done and the total.
    """

    def run(function: Callable[[Chunk], Any], chunks: Sequence[Chunk]) -> Iterator[Any]:
        futures = [executor.submit(function, chunk) for chunk in chunks]
        for done, future in enumerate(as_completed(futures), start=1):
            show(done, len(chunks))
            yield future.result()

    return run


def _read_manifest(job: Job) -> Manifest | None:
    path = join(job.folder, "manifest.json")
    if not exists(path):
        return None
    content = json.loads(read_whole(path))
    return Manifest(**content | {"parts": tuple(Chunk(**chunk) for chunk in content["parts"])})


def _write_manifest(job: Job, manifest: Manifest) -> None:
    write_whole(join(job.folder, "manifest.json"), json.dumps(asdict(manifest), indent=1).encode())


def list_files(location: Location) -> list[Location]:
    """The files of wines in a folder or under an address, by name; a file is listed whatever its name.

    Raises:
        NotThereError: there is no such file or folder.
    """
    if not is_folder(location):
        return [location]
    return [join(location, name) for name in list_names(location) if has_wine_suffix(name)]


def find_files(locations: Sequence[Location], default: Location) -> list[Location]:
    """The files of wines in some locations; without any, those in the default folder, created if missing."""
    if not locations and isinstance(default, Path):
        default.mkdir(parents=True, exist_ok=True)
    found = [file for location in locations or [default] for file in list_files(location)]
    if not found and any(isinstance(location, str) for location in locations):
        raise NotThereError(f"there is no table of {ROWS} in {', '.join(map(str, locations))}")
    return found
