"""What the tasks of the flows do, where it takes more than one room: plain functions, without Prefect.

They take and return names and small results. Wines travel as the fingerprint of a snapshot, models as
the id of a run or as a version, so that a task can be cached, retried or run alone.
"""

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import mlflow
from rich.console import Console

from experiment_tracking.gate import Verdict
from experiment_tracking.registry import judge_version
from experiment_tracking.search import Plan, search_models
from experiment_tracking.search_space import CLASSIFIER
from experiment_tracking.store import EXPERIMENT, find_experiment
from experiment_tracking.tracking import TrackedModel, track_model
from experiment_tracking.versions import Version
from orchestration.probe import pick_wine
from orchestration.s3 import load_source
from settings import ROOT
from wine_data.audit import audit_wines
from wine_data.schema import WineQuality
from wine_data.snapshot import keep_snapshot, read_snapshot
from wine_data.split import Sides, split_wines
from wine_quality_training.train import train_model

# What decides how a model comes out and what its run holds; a change there makes every cached model stale.
FITTING_CODE = ("wine_data", "wine_quality_training", "experiment_tracking", "requirements.txt")


def fetch_wines(source: str, seed: int, downloads: Path, uci_url: str, snapshots: Path, s3_block: str = "") -> str:
    """Load wines from a source, keep them as a snapshot, and return its fingerprint."""
    data = load_source(source, seed, downloads, uci_url, s3_block)
    keep_snapshot(data, snapshots)
    return data.fingerprint


def audit_snapshot(fingerprint: str, snapshots: Path) -> list[str]:
    """What is wrong with the wines of a snapshot, in sentences."""
    return audit_wines(read_snapshot(snapshots, fingerprint)).sentences()


def train_and_track(
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
    sides = split_wines(data.train, data.validation, folds, seed)
    return track_model(experiment_id, parent_id, data, sides, train_model(name, data, sides, seed, on_step=on_step))


def search_and_track(
    trials: int, fingerprint: str, snapshots: Path, folds: int, seed: int, experiment_id: str
) -> list[TrackedModel]:
    """Tune models for grades in so many trials, and return the winner, tracked."""
    data = read_snapshot(snapshots, fingerprint)
    sides = split_wines(data.train, data.validation, folds, seed)
    plan = Plan(task=CLASSIFIER, trials=trials, seed=seed, workers=os.cpu_count() or 1)
    return search_models(plan, data, sides, experiment_id, Console(quiet=True)).tracked


def judge_on_holdout(challenger: Version, fingerprint: str, snapshots: Path) -> Verdict:
    """Let the gate compare a version with the champion on the holdout wines of a snapshot."""
    return judge_version(challenger, _split(fingerprint, snapshots).holdout)


def pick_holdout_wine(fingerprint: str, snapshots: Path) -> tuple[WineQuality, int]:
    """A wine of the holdout to ask the API about, with the grade that the tasters gave it."""
    return pick_wine(_split(fingerprint, snapshots).holdout)


@lru_cache
def fingerprint_code() -> str:
    """SHA-256 of the code and the lock that decide how a model comes out."""
    digest = hashlib.sha256()
    for name in FITTING_CODE:
        paths = [ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).glob("*.py"))
        for path in paths:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def identify_store() -> str:
    """What tells this tracking store from a new one at the same address: a run cached for one is not in the other."""
    return f"{mlflow.get_tracking_uri()} {find_experiment(EXPERIMENT).creation_time}"


def _split(fingerprint: str, snapshots: Path) -> Sides:
    data = read_snapshot(snapshots, fingerprint)
    return split_wines(data.train, data.validation, folds=2, seed=0)  # the holdout depends on neither
