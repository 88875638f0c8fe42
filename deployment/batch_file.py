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

from deployment.batch_job import Job, load_engine_once, score_part
from deployment.batch_parts import SUFFIXES, Part, divide_file
from deployment.places import Place, exists, find_name, join, list_names, read_whole, write_whole
from wine_quality_training.bundle import FACTS_FILE, find_current, read_facts

Show = Callable[[int, int], None]


@dataclass(frozen=True)
class ScoredFile:
    """What became of one file; `refused` is None where every row was a wine."""

    wines: Place
    answers: Place
    refused: Place | None
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
    parts: tuple[Part, ...]
    done: bool = False
    scored: int = 0
    refused: int = 0


def score_file(
    wines: Place, models: Path, answers: Place, executor: Executor | None = None, show: Show = lambda done, of: None
) -> ScoredFile:
    """Score one file with the bundle that serves, or go on where a run that was killed left off.

    Args:
        wines: a CSV or Parquet file with the eleven measurements and the colour (type or red_wine), and maybe more.
        models: the folder of serving bundles.
        answers: the folder that the answers go to, or s3://bucket/path; it is made if need be.
        executor: what runs the parts; None: they run here, one after the other.
        show: is told after each part how many of how many parts are done.

    Raises:
        BadInputError: it is no file of wines: a column is missing, or nothing in it can be read.
        NotThereError: there is no such file, or no model yet.
    """
    bundle = find_current(models)
    facts = read_facts(bundle / FACTS_FILE)
    content, parts = divide_file(wines)
    digest = hashlib.sha256(f"{content} {facts.run_id}".encode()).hexdigest()[:12]
    stem = find_name(wines).rpartition(".")[0]
    job = Job(wines, bundle, join(answers, f"{stem}.{facts.version}.{digest}"), digest)
    manifest = _read_manifest(job) or Manifest(find_name(wines), facts.version, facts.run_id, tuple(parts))
    new = not manifest.done
    if new:
        load_engine_once(bundle)  # so that a bad bundle leaves no folder behind, and threads find it loaded
        _write_manifest(job, manifest)
        counts = list(_score_parts(job, manifest.parts, executor, show))
        scored, refused = (sum(column) for column in zip(*counts, strict=True))
        manifest = replace(manifest, done=True, scored=scored, refused=refused)
        _write_manifest(job, manifest)
    refusals = join(job.folder, "refused") if manifest.refused else None
    return ScoredFile(
        wines, join(job.folder, "answers"), refusals, manifest.scored, manifest.refused, facts.version, new
    )


def _score_parts(job: Job, parts: Sequence[Part], executor: Executor | None, show: Show) -> Iterator[tuple[int, int]]:
    if executor and len(parts) > 1:
        futures = [executor.submit(score_part, job, part) for part in parts]
        counts = (future.result() for future in as_completed(futures))
    else:
        counts = (score_part(job, part) for part in parts)
    for done, count in enumerate(counts, start=1):
        show(done, len(parts))
        yield count


def _read_manifest(job: Job) -> Manifest | None:
    path = join(job.folder, "manifest.json")
    if not exists(path):
        return None
    content = json.loads(read_whole(path))
    return Manifest(**content | {"parts": tuple(Part(**part) for part in content["parts"])})


def _write_manifest(job: Job, manifest: Manifest) -> None:
    write_whole(join(job.folder, "manifest.json"), json.dumps(asdict(manifest), indent=1).encode())


def list_files(place: Place) -> list[Place]:
    """The files of wines in a folder or under an address, by name; a file is itself."""
    if find_name(place).endswith(SUFFIXES):
        return [place]
    return [join(place, name) for name in list_names(place) if name.endswith(SUFFIXES)]
