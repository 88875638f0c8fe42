"""One file of wines from its first part to its last: what is to be done for it, and what became of it.

The parts that are done are written down in a manifest beside the answers, so that a run that was killed is taken up
again where it was.
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
    """What is to be done for a file, and what became of it: read again, it says where to go on."""

    wines: str
    version: str
    run_id: str
    parts: tuple[Chunk, ...]  # their name in the JSON
    done: bool = False
    scored: int = 0
    refused: int = 0


@dataclass(frozen=True)
class ScoredFile:
    """What became of one file; `new` says that this run scored it, `description` what is unusual about the file."""

    job: Job
    manifest: Manifest
    new: bool
    description: str = ""

    @property
    def answers(self) -> Location:
        """The folder of the answers."""
        return join(self.job.folder, "answers")

    @property
    def refused(self) -> Location | None:
        """The folder of the rows that are no wines, with reasons; None where every row was a wine."""
        return join(self.job.folder, "refused") if self.manifest.refused else None

    def sentence(self) -> str:
        """What became of it, for a person to read."""
        done, name = self.manifest, self.manifest.wines
        if not self.new:
            return f"{name}: scored by version {done.version} before, see {self.answers}"
        read = f" ({self.description})" if self.description else ""
        refused = f", {done.refused:,} refused, see {self.refused}" if done.refused else ""
        return f"{name}{read}: {done.scored:,} {ROWS} scored by version {done.version} into {self.answers}{refused}"


def score_file(
    wines: Location, models: Path, answers: Location, map_fn: MapFunction = map, options: Options = PLAIN
) -> ScoredFile:
    """Score one file with the bundle that serves, or go on where a run that was killed left off.

    Args:
        wines: a table as text or Parquet with the eleven measurements and the colour, and maybe more.
        models: the folder of serving bundles.
        answers: the folder that the answers go to, or s3://bucket/path; it is made if need be.
        map_fn: runs the chunks, as map_chunks does; map: here, one after the other.
        options: what may be chosen.

    Raises:
        BadInputError: it is no file of wines: a column is missing, or nothing in it can be read. Or the model is so
            old that it cannot explain its answers.
        NotThereError: there is no such file, or no model yet.
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
        load_predictor_once(bundle)  # so that a bad bundle leaves no folder behind, and threads find it loaded
        _write_manifest(job, manifest)
        counts = list(map_fn(partial(score_chunk, job), manifest.parts))
        scored, refused = (sum(column) for column in zip(*counts, strict=True))
        manifest = replace(manifest, done=True, scored=scored, refused=refused)
        _write_manifest(job, manifest)
    return ScoredFile(job, manifest, new, layout.description)


def map_chunks(executor: Executor, show: Show = lambda done, of: None) -> MapFunction:
    """A map whose pieces run on an executor; its results come as they are ready.

    Args:
        executor: where.
        show: is called after each piece with how many of how many are done.
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
    """The files of wines in a folder or under an address, by name; a file is itself, whatever its name.

    Raises:
        NotThereError: there is neither.
    """
    if not is_folder(location):
        return [location]
    return [join(location, name) for name in list_names(location) if has_wine_suffix(name)]


def find_files(locations: Sequence[Location], default: Location) -> list[Location]:
    """The files of wines in some places; of none, those in the default folder, which is made if need be."""
    if not locations and isinstance(default, Path):
        default.mkdir(parents=True, exist_ok=True)
    found = [file for location in locations or [default] for file in list_files(location)]
    if not found and any(isinstance(location, str) for location in locations):
        raise NotThereError(f"there is no table of {ROWS} in {', '.join(map(str, locations))}")
    return found
