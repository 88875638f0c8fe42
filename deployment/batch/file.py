"""One file of wines from its first part to its last: what is to be done for it, and what became of it.

The parts that are done are written down in a manifest beside the answers, so that a run that was killed is taken up
again where it was.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from deployment.batch.chunks import SUFFIXES, Chunk, divide_file
from deployment.batch.job import Job, load_predictor_once, score_chunk
from deployment.batch.storage import Location, exists, find_name, join, list_names, read_whole, write_whole
from wine_quality_training.bundle.files import METADATA_FILE, find_current
from wine_quality_training.bundle.metadata import read_metadata

Show = Callable[[int, int], None]


@dataclass(frozen=True)
class ScoredFile:
    """What became of one file; `refused` is None where every row was a wine."""

    wines: Location
    answers: Location
    refused: Location | None
    scored: int
    refusals: int
    version: str
    new: bool

    def sentence(self) -> str:
        """What became of it, for a person to read."""
        name = find_name(self.wines)
        if not self.new:
            return f"{name}: scored by version {self.version} before, see {self.answers}"
        refused = f", {self.refusals:,} refused, see {self.refused}" if self.refused else ""
        return f"{name}: {self.scored:,} wines scored by version {self.version} into {self.answers}{refused}"


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


def score_file(
    wines: Location,
    models: Path,
    answers: Location,
    executor: Executor | None = None,
    show: Show = lambda done, of: None,
) -> ScoredFile:
    """Score one file with the bundle that serves, or go on where a run that was killed left off.

    Args:
        wines: a CSV or Parquet file with the eleven measurements and the colour (type or red_wine), and maybe more.
        models: the folder of serving bundles.
        answers: the folder that the answers go to, or s3://bucket/path; it is made if need be.
        executor: what runs the parts; None: they run here, one after the other.
        show: is called after each chunk with how many of how many are done.

    Raises:
        BadInputError: it is no file of wines: a column is missing, or nothing in it can be read.
        NotThereError: there is no such file, or no model yet.
    """
    bundle = find_current(models)
    metadata = read_metadata(bundle / METADATA_FILE)
    content, chunks = divide_file(wines)
    digest = hashlib.sha256(f"{content} {metadata.run_id}".encode()).hexdigest()[:12]
    stem = find_name(wines).rpartition(".")[0]
    job = Job(wines, bundle, join(answers, f"{stem}.{metadata.version}.{digest}"), digest)
    manifest = _read_manifest(job) or Manifest(find_name(wines), metadata.version, metadata.run_id, tuple(chunks))
    new = not manifest.done
    if new:
        load_predictor_once(bundle)  # so that a bad bundle leaves no folder behind, and threads find it loaded
        _write_manifest(job, manifest)
        counts = list(_score_chunks(job, manifest.parts, executor, show))
        scored, refused = (sum(column) for column in zip(*counts, strict=True))
        manifest = replace(manifest, done=True, scored=scored, refused=refused)
        _write_manifest(job, manifest)
    refusals = join(job.folder, "refused") if manifest.refused else None
    return ScoredFile(
        wines, join(job.folder, "answers"), refusals, manifest.scored, manifest.refused, metadata.version, new
    )


def _score_chunks(
    job: Job, chunks: Sequence[Chunk], executor: Executor | None, show: Show
) -> Iterator[tuple[int, int]]:
    if executor and len(chunks) > 1:
        futures = [executor.submit(score_chunk, job, chunk) for chunk in chunks]
        counts = (future.result() for future in as_completed(futures))
    else:
        counts = (score_chunk(job, chunk) for chunk in chunks)
    for done, count in enumerate(counts, start=1):
        show(done, len(chunks))
        yield count


def _read_manifest(job: Job) -> Manifest | None:
    path = join(job.folder, "manifest.json")
    if not exists(path):
        return None
    content = json.loads(read_whole(path))
    return Manifest(**content | {"parts": tuple(Chunk(**chunk) for chunk in content["parts"])})


def _write_manifest(job: Job, manifest: Manifest) -> None:
    write_whole(join(job.folder, "manifest.json"), json.dumps(asdict(manifest), indent=1).encode())


def list_files(location: Location) -> list[Location]:
    """The files of wines in a folder or under an address, by name; a file is itself."""
    if find_name(location).endswith(SUFFIXES):
        return [location]
    return [join(location, name) for name in list_names(location) if name.endswith(SUFFIXES)]
