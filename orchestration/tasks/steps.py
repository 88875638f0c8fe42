"""What the tasks of the flows do, where it takes more than one room: plain functions, without Prefect.

They take and return names and small results. Wines travel as the fingerprint of a snapshot, models as
the id of a run or as a version, so that a task can be cached, retried or run alone.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pandas as pd
from rich.console import Console

from commands import BadInputError, NotThereError
from deployment.prediction_log.reader import iterate_answers
from experiment_tracking.registry.gate import FEWEST_RECENT, Verdict
from experiment_tracking.registry.versions import Version, find_champion, judge_version
from experiment_tracking.runs.store import EXPERIMENT, find_experiment, name_store
from experiment_tracking.runs.tracking import TrackedModel, track_model
from experiment_tracking.search.selection import search_models
from experiment_tracking.search.space import CLASSIFIER, Plan
from monitoring.replay import replay_log
from orchestration.s3 import SCHEME, load_bucket
from orchestration.tasks.probe import pick_wine
from settings import ROOT, Settings
from wine_data.audit.checks import audit_wines
from wine_data.schema import FEATURES, TARGET, WineQuality
from wine_data.snapshots.labelled import divide_labelled, join_labelled
from wine_data.snapshots.snapshot import keep_snapshot, read_snapshot
from wine_data.sources.load import load_wines
from wine_data.split import Split, split_wines
from wine_quality_training.evaluate import Fitting, train_model

# What decides how a model comes out and what its run holds; a change there makes every cached model stale.
FITTING_CODE = ("wine_data", "wine_quality_training", "experiment_tracking", "requirements.txt")


def fetch_wines(  # noqa: PLR0913 (Prefect shows plain values)
    source: str, seed: int, downloads: Path, uci_url: str, snapshots: Path, s3_block: str = "", wine_type: str = ""
) -> str:
    """Load wines from a source or a bucket, keep them as a snapshot, and return its fingerprint."""
    if source.startswith(SCHEME):
        data = load_bucket(source, seed, downloads, s3_block)
    else:
        data = load_wines(source, seed, downloads, uci_url, wine_type)
    keep_snapshot(data, snapshots)
    return data.fingerprint


def audit_snapshot(fingerprint: str, snapshots: Path) -> list[str]:
    """What is wrong with the wines of a snapshot, in sentences."""
    return audit_wines(read_snapshot(snapshots, fingerprint)).sentences()


def train_and_track(  # noqa: PLR0913 (Prefect caches by plain values)
    name: str,
    fingerprint: str,
    snapshots: Path,
    folds: int,
    seed: int,
    experiment_id: str,
    parent_id: str,
    on_step: Callable[[str], None] = lambda step: None,
) -> TrackedModel:
    """Fit and score one model under both protocols, and log it as a nested run."""
    data = read_snapshot(snapshots, fingerprint)
    split = split_wines(data.train, data.validation, folds, seed)
    evaluations = train_model(name, data, split, seed, Fitting(on_step=on_step))
    return track_model(experiment_id, parent_id, data, split, evaluations)


def search_and_track(  # noqa: PLR0913 (Prefect caches by plain values)
    trials: int, fingerprint: str, snapshots: Path, folds: int, seed: int, experiment_id: str, dask: str = ""
) -> list[TrackedModel]:
    """Tune models for grades in so many trials, here or on a Dask cluster, and return the winner, tracked."""
    data = read_snapshot(snapshots, fingerprint)
    split = split_wines(data.train, data.validation, folds, seed)
    plan = Plan(task=CLASSIFIER, trials=trials, seed=seed, workers=os.cpu_count() or 1, dask=dask)
    return search_models(plan, data, split, experiment_id, Console(quiet=True)).tracked


def gather_labelled(log_url: str, since: float, snapshots: Path) -> str:
    """Keep the labelled answers that the log has since a time as a snapshot, and return its fingerprint.

    Raises:
        BadInputError: there are too few for the gate to judge a model by.
    """
    columns = [*FEATURES, TARGET]
    parts = [part.loc[part[TARGET].notna(), columns].dropna() for part in iterate_answers(log_url, since)]
    labelled = divide_labelled(pd.concat(parts) if parts else pd.DataFrame(columns=columns, dtype="float64"))
    if len(labelled.validation) < FEWEST_RECENT:
        raise BadInputError(
            f"{labelled.source}, {len(labelled.validation)} of them in the holdout: the gate needs {FEWEST_RECENT}. "
            "Collect more grades before a retraining"
        )
    keep_snapshot(labelled, snapshots)
    return labelled.fingerprint


def find_labelled(snapshots: Path) -> str:
    """The fingerprint of the labelled answers that the champion learned from, "" for none, or none kept here.

    A scheduled run learns from them too, or it would forget what the champion knows.
    """
    champion = find_champion()
    try:
        return read_snapshot(snapshots, champion.fingerprint).labelled if champion else ""
    except NotThereError:
        return ""


def add_labelled(fingerprint: str, labelled: str, snapshots: Path) -> str:
    """Keep the wines of one snapshot with the labelled answers of another, and return the fingerprint of both."""
    joined = join_labelled(read_snapshot(snapshots, fingerprint), read_snapshot(snapshots, labelled))
    keep_snapshot(joined, snapshots)
    return joined.fingerprint


def judge_on_holdout(challenger: Version, fingerprint: str, snapshots: Path) -> Verdict:
    """Let the gate compare a version with the champion on the holdout wines of a snapshot.

    Where labelled answers joined the wines, it takes those of the holdout too: the form for after drift.
    """
    labelled = read_snapshot(snapshots, fingerprint).labelled
    recent = read_snapshot(snapshots, labelled).validation if labelled else None
    return judge_version(challenger, _split(fingerprint, snapshots).holdout, recent)


def note_replay(verdict: Verdict, settings: Settings) -> Verdict:
    """A verdict with what the challenger would have answered lately; as it is where the log has nothing to replay."""
    try:
        replay = replay_log(settings, verdict.challenger)
    except (BadInputError, NotThereError):
        return verdict
    return replace(verdict, notes=tuple(replay.sentences()))


def pick_holdout_wine(fingerprint: str, snapshots: Path) -> tuple[WineQuality, int]:
    """A wine of the holdout to ask the API about, with the grade that the tasters gave it."""
    return pick_wine(_split(fingerprint, snapshots).holdout)


@lru_cache
def fingerprint_code() -> str:
    """SHA-256 of the code and the lock that decide how a model comes out."""
    digest = hashlib.sha256()
    for name in FITTING_CODE:
        paths = [ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*.py"))
        for path in paths:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def identify_store() -> str:
    """Name and age of this tracking store: a run that was cached for another store is not in it."""
    return f"{name_store()} {find_experiment(EXPERIMENT).creation_time}"


def _split(fingerprint: str, snapshots: Path) -> Split:
    data = read_snapshot(snapshots, fingerprint)
    return split_wines(data.train, data.validation, folds=2, seed=0)  # the holdout depends on neither
