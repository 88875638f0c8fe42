"""The registered versions of the one model this project serves, and the aliases that name two of them."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import get_model_info

from commands import BadInputError, NotThereError
from experiment_tracking.registry.gate import MARGIN, Terms, Verdict, check_models, judge_challenger, pick_unseen
from experiment_tracking.registry.questions import answer_question, fingerprint_holdout, pose_question
from experiment_tracking.runs.store import name_store
from experiment_tracking.runs.tracking import CARD, DIGEST, METADATA
from wine_data.schema import FEATURES, GRADES, NAME, ROW
from wine_quality_training.bundle.bundle import (
    MODEL_FILE,
    Bundle,
    find_bundle,
    find_mismatch,
    unpickle_model,
    write_bundle,
)
from wine_quality_training.bundle.metadata import ModelMetadata, read_metadata

if TYPE_CHECKING:
    import pandas as pd

MODEL, CHAMPION, CHALLENGER = NAME, "champion", "challenger"
REPLAY = "replay"  # a tag of a version for each champion, whose number follows after a dot
LONGEST_DESCRIPTION = 5000  # characters, the limit of MLflow's column; the run has the whole card
_KAPPA = {"kappa.cv": "leak-free.cv.kappa", "kappa.holdout": "leak-free.holdout.kappa"}


@dataclass(frozen=True)
class Version:
    """One registered version: `number` is MLflow's, `digest` its pickle's, `aliases` may be champion and challenger."""

    number: str
    model: str
    run_id: str
    source: str
    fingerprint: str
    digest: str
    kappa_cv: float
    kappa_holdout: float
    registered: datetime
    aliases: tuple[str, ...]
    card: str


def register_model(run_id: str) -> Version:
    """Register the model of a run as the next version, and make it the challenger.

    A run that is already registered keeps its version, so this function can be called again.

    Raises:
        NotThereError: there is no such run, or it cannot be read now.
        BadInputError: the run has no model, or the model has no signature or no leak-free score.
    """
    client = mlflow.MlflowClient()
    metadata = _read_metadata(run_id)
    words = f"Grade of a {ROW}, {GRADES[0]} to {GRADES[-1]}, from {len(FEATURES)} features."
    try:
        client.create_registered_model(MODEL, description=words)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = client.search_model_versions(f"name = '{MODEL}' and run_id = '{run_id}'")
    version = found[0] if found else _create_version(client, run_id, metadata)
    client.set_registered_model_alias(MODEL, CHALLENGER, version.version)
    return find_version(str(version.version))


def list_versions() -> list[Version]:
    """All versions, the newest first."""
    client = mlflow.MlflowClient()
    models = client.search_registered_models(f"name = '{MODEL}'")
    aliases = models[0].aliases if models else {}
    versions = [_describe(version, aliases) for version in client.search_model_versions(f"name = '{MODEL}'")]
    return sorted(versions, key=lambda version: int(version.number), reverse=True)


def find_version(name: str) -> Version:
    """Find a version by its number or alias. Raises NotThereError, which lists the known versions."""
    versions = list_versions()
    for version in versions:
        if name == version.number or name in version.aliases:
            return version
    known = ", ".join(version.number for version in versions) or "none; run make pipeline"
    raise NotThereError(f"{MODEL} has no version {name}; there are: {known}")


def find_champion() -> Version | None:
    """The version that the champion alias names, if there is one."""
    return next((version for version in list_versions() if CHAMPION in version.aliases), None)


def set_alias(alias: str, number: str) -> None:
    """Make an alias name a version."""
    mlflow.MlflowClient().set_registered_model_alias(MODEL, alias, number)


def note_replay(challenger: str, champion: str, sentences: list[str]) -> None:
    """Store on a version what a replay found beside this champion, for the gate's verdict on it."""
    mlflow.MlflowClient().set_model_version_tag(MODEL, challenger, f"{REPLAY}.{champion}", "\n".join(sentences))


def load_version(version: Version) -> Bundle:
    """Load a version. Raises BadInputError if its pickle was changed, or its features or libraries differ."""
    pickled, metadata = _read_model(version)
    return Bundle(unpickle_model(pickled), metadata)


def judge_version(
    version: Version, holdout: "pd.DataFrame", recent: "pd.DataFrame | None" = None, margin: float = MARGIN
) -> Verdict:
    """Load a version and the champion, and let the gate compare them at the level for the holdout's count.

    A version with the champion's digest is refused without a question to the holdout. The verdict's notes are the last
    replay of the version beside this champion.
    """
    champion = find_champion()
    if champion and champion.digest == version.digest:
        return Verdict(version.number, champion.number, ())
    challenger, rival = load_version(version), load_version(champion) if champion else None
    check_models(challenger, rival)  # before the question, which is counted
    lately = "" if recent is None else fingerprint_holdout(pick_unseen(recent))
    question = (fingerprint_holdout(holdout), version.digest, champion.digest if champion else "", lately)
    posed = pose_question(MODEL, *question)
    verdict = judge_challenger(challenger, rival, holdout, recent, Terms(margin, posed))
    answer_question(MODEL, posed, verdict.admitted, *question)
    return replace(verdict, notes=_read_replay(version, champion))


def export_version(version: Version, models: Path) -> Path:
    """Return the serving bundle of a version; write it from the store if it is missing or damaged."""
    there = find_bundle(models, version.number, version.run_id)
    if there:
        return there
    from wine_quality_training.bundle.compilation import compile_model  # takes two seconds and is seldom needed

    pickled, metadata = _read_model(version)
    return write_bundle(models, pickled, metadata, compile_model(unpickle_model(pickled), metadata))


def _read_replay(version: Version, champion: Version | None) -> tuple[str, ...]:
    tags = mlflow.MlflowClient().get_model_version(MODEL, version.number).tags
    return tuple(tags.get(f"{REPLAY}.{champion.number}", "").splitlines()) if champion else ()


def _create_version(client: mlflow.MlflowClient, run_id: str, metadata: ModelMetadata) -> ModelVersion:
    run = client.get_run(run_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise BadInputError(f"run {run_id} has no model to register")
    uri = f"models:/{outputs[0].model_id}"
    if get_model_info(uri).signature is None:
        raise BadInputError(f"the model of run {run_id} has no signature: its inputs are unknown")
    tags = {
        "model": metadata.model,
        "data.source": metadata.data_source,
        "data.fingerprint": metadata.data_fingerprint,
        DIGEST: run.data.tags[DIGEST],
        **{tag: f"{metadata.metrics[metric]:.4f}" for tag, metric in _KAPPA.items() if metric in metadata.metrics},
    }
    card = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{CARD}")).read_text()
    card = card[:LONGEST_DESCRIPTION]
    model_id = outputs[0].model_id  # a server with passwords needs it to check who may read the model
    return client.create_model_version(MODEL, uri, run_id, tags=tags, description=card, model_id=model_id)


def _read_metadata(run_id: str) -> ModelMetadata:
    """The metadata that track_model left on a run."""
    try:
        mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise NotThereError(f"there is no run {run_id} in {name_store()}") from error
    try:
        path = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{METADATA}"))
    except (MlflowException, OSError) as error:
        if METADATA in [file.path for file in mlflow.MlflowClient().list_artifacts(run_id)]:
            raise NotThereError(
                f"{METADATA} of run {run_id} exists but cannot be read: check its disk or server, then try again"
            ) from error
        raise BadInputError(f"run {run_id} has no {METADATA}: it has no model that was scored leak-free") from error
    metadata = read_metadata(path)
    needed = _KAPPA["kappa.holdout"]  # not kappa.cv: a model of partitioned wines has none
    if needed not in metadata.metrics:
        raise BadInputError(
            f"run {run_id} has no metric {needed}: only models that were scored leak-free can be registered"
        )
    return metadata


def _read_model(version: Version) -> tuple[bytes, ModelMetadata]:
    """The pickle and metadata of a version, if digest, features and libraries match."""
    client = mlflow.MlflowClient()
    folder = client.get_model_version_download_uri(MODEL, version.number)
    pickled = Path(mlflow.artifacts.download_artifacts(f"{folder}/{MODEL_FILE}")).read_bytes()
    if sha256(pickled).hexdigest() != client.get_model_version(MODEL, version.number).tags[DIGEST]:
        raise BadInputError(f"the pickle of {MODEL} version {version.number} was changed since it was tracked")
    metadata = _read_metadata(version.run_id)
    mismatch = find_mismatch(metadata)
    if metadata.features != FEATURES:
        others = ", ".join(sorted(set(metadata.features) ^ set(FEATURES))) or "in another order"
        mismatch = f"was fitted on other features than wine_data/schema.py has now ({others})"
    if mismatch:
        name = f"{MODEL} version {version.number}"
        raise BadInputError(f"{name} {mismatch}: changed features need new stores, see docs/your_own.md")
    return pickled, replace(metadata, name=MODEL, version=version.number, run_id=version.run_id)


def _describe(version: ModelVersion, aliases: dict[str, str]) -> Version:
    tags, number = version.tags, str(version.version)
    return Version(
        number=number,
        model=tags.get("model", "unknown"),
        run_id=str(version.run_id),
        source=tags.get("data.source", "unknown"),
        fingerprint=tags.get("data.fingerprint", ""),
        digest=tags.get(DIGEST, ""),
        kappa_cv=float(tags.get("kappa.cv", "nan")),
        kappa_holdout=float(tags.get("kappa.holdout", "nan")),
        registered=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        aliases=tuple(sorted(alias for alias, named in aliases.items() if str(named) == number)),
        card=version.description or "",
    )
