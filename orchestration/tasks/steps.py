"""Plain functions for the flows' tasks that combine several packages, without Prefect.

They take and return names and small results. The fingerprint of a snapshot stands for wines, a run id or a version for
a model, so that a task can be cached, retried or run alone.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
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
from monitoring.replay import record_replay, replay_log
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

# The code that determines a model and the content of its run; a change there invalidates all cached models.
FITTING_CODE = ("wine_data", "wine_quality_training", "experiment_tracking", "requirements.txt")


def fetch_wines(  # noqa: PLR0913 (Prefect shows plain values)
    source: str, seed: int, downloads: Path, uci_url: str, snapshots: Path, s3_block: str = "", wine_type: str = ""
) -> str:
    """Load wines from a source or a bucket, store them as a snapshot, and return its fingerprint."""
    if source.startswith(SCHEME):
        data = load_bucket(source, seed, downloads, s3_block)
    else:
        data = load_wines(source, seed, downloads, uci_url, wine_type)
    keep_snapshot(data, snapshots)
    return data.fingerprint


def audit_snapshot(fingerprint: str, snapshots: Path) -> list[str]:
    """Audit the wines of a snapshot; return the findings as sentences."""
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
    """Tune classifiers in `trials` trials, here or on a Dask cluster, and return the best one, tracked."""
    data = read_snapshot(snapshots, fingerprint)
    split = split_wines(data.train, data.validation, folds, seed)
    plan = Plan(task=CLASSIFIER, trials=trials, seed=seed, workers=os.cpu_count() or 1, dask=dask)
    return search_models(plan, data, split, experiment_id, Console(quiet=True)).tracked


def gather_labelled(log_url: str, since: float, snapshots: Path) -> str:
    """Store the log's labelled predictions since a time as a snapshot, and return its fingerprint.

    Raises:
        BadInputError: there are too few for the gate to judge a model.
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
    """The fingerprint of the labelled predictions that the champion learned from; "" if there are none here.

    A scheduled run learns from them too, or its model would lose what the champion has learned.
    """
    champion = find_champion()
    try:
        return read_snapshot(snapshots, champion.fingerprint).labelled if champion else ""
    except NotThereError:
        return ""


def add_labelled(fingerprint: str, labelled: str, snapshots: Path) -> str:
    """Store a snapshot of wines together with labelled predictions, and return the new fingerprint."""
    joined = join_labelled(read_snapshot(snapshots, fingerprint), read_snapshot(snapshots, labelled))
    keep_snapshot(joined, snapshots)
    return joined.fingerprint


def judge_on_holdout(challenger: Version, fingerprint: str, snapshots: Path) -> Verdict:
    """Let the gate compare a version with the champion on the holdout wines of a snapshot.

    If the snapshot has labelled predictions, it also uses those of the holdout: the gate's mode after drift.
    """
    labelled = read_snapshot(snapshots, fingerprint).labelled
    recent = read_snapshot(snapshots, labelled).validation if labelled else None
    return judge_version(challenger, _split(fingerprint, snapshots).holdout, recent)


def replay_challenger(challenger: Version, settings: Settings) -> None:
    """Replay recent traffic for the verdict on a challenger; nothing if the log has nothing to replay."""
    with suppress(BadInputError, NotThereError):
        record_replay(replay_log(settings, challenger.number))


def pick_holdout_wine(fingerprint: str, snapshots: Path) -> tuple[WineQuality, int]:
    """A holdout wine to send to the API, with its tasters' grade."""
    return pick_wine(_split(fingerprint, snapshots).holdout)


@lru_cache
def fingerprint_code() -> str:
    """SHA-256 of the code and the lock file that determine a model."""
    digest = hashlib.sha256()
    for name in FITTING_CODE:
        paths = [ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*.py"))
        for path in paths:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def identify_store() -> str:
    """Name and creation time of this tracking store: it does not contain runs cached for another store."""
    return f"{name_store()} {find_experiment(EXPERIMENT).creation_time}"


def _split(fingerprint: str, snapshots: Path) -> Split:
    data = read_snapshot(snapshots, fingerprint)
    return split_wines(data.train, data.validation, folds=2, seed=0)  # the holdout depends on neither
