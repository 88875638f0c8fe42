"""Promotion and rollback: the champion alias, the bundle that serves, and a record of each move.

A record is one MLflow run in the experiment wine-quality-promotions, written once and never changed: who,
when, from, to, verdict, reason. The alias names the champion; the records show how it got there.

A move is: open the record, move the alias, make its bundle the one that serves, close the record, all under a
lock. The next move finishes one that was killed on the way, or marks it as failed if the alias had not moved yet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow
from mlflow.entities import Run

from commands import RefusedError
from experiment_tracking.registry.gate import Verdict
from experiment_tracking.registry.versions import (
    CHAMPION,
    Version,
    export_version,
    find_champion,
    find_version,
    set_alias,
)
from experiment_tracking.runs.locks import hold_lock
from experiment_tracking.runs.store import PROMOTIONS, find_experiment, hold_between_machines
from experiment_tracking.runs.tracking import describe_code, end_run, log_values
from wine_quality_training.bundle.bundle import select_bundle, serves

PROMOTED, ROLLED_BACK, REFUSED = "promotion", "rollback", "refusal"


@dataclass(frozen=True)
class Record:
    """One promotion, rollback or refusal: `champion` is the version before, "" for none, `version` the one after it."""

    event: str
    when: datetime
    who: str
    champion: str
    version: str
    verdict: str
    reason: str


def promote(version: Version, verdict: Verdict, models: Path, reason: str = "") -> Path:
    """Make a version the champion, and its bundle the one that serves; return the bundle's folder.

    A person's `reason` is recorded, and overrules a refusal by the gate. `models` has the serving bundles.

    Raises:
        RefusedError: the gate refused, which is recorded, or another version became champion since the verdict.
    """
    if not verdict.admitted and not reason:
        record_refusal(version, verdict)
        raise RefusedError("; ".join(verdict.sentences()))
    bundle = export_version(version, models)
    with _moving(models):
        champion = _name_champion()
        if champion == version.number:
            raise RefusedError(f"version {champion} is the champion already")
        if champion != verdict.champion:
            raise RefusedError(
                f"version {champion} became champion after version {version.number} was compared with "
                f"{verdict.name_rival()}: compare again"
            )
        return _move(PROMOTED, version, bundle, verdict, reason)


def record_refusal(version: Version, verdict: Verdict) -> None:
    """Record that the gate refused a version."""
    end_run(_open_record(REFUSED, version.number, verdict.champion, verdict))


def roll_back(models: Path, reason: str = "") -> tuple[Version, Path]:
    """Bring back the champion before this one, with its bundle. Raises RefusedError where there was none.

    Where the alias was moved by hand, that is the version it was moved from, and the record says so. A rollback that
    was killed after it moved the alias is finished, and none is added to it.
    """
    with _moving(models) as settled:
        recorded, champion = _list_recorded(), _name_champion()
        if settled.bundle and ROLLED_BACK in settled.finished:
            return find_version(champion), settled.bundle
        if recorded and recorded[-1] != champion:
            moved = f"the alias was moved by hand from version {recorded[-1]} to {champion or 'none'}"
            former, reason = find_version(recorded[-1]), "; ".join(filter(None, [moved, reason]))
        elif len(recorded) > 1:
            former = find_version(recorded[-2])
        else:
            raise RefusedError("no version was champion before this one")
        bundle = export_version(former, models)
        return former, _move(ROLLED_BACK, former, bundle, None, reason)


def list_records() -> list[Record]:
    """Every promotion, rollback and refusal, the oldest first."""
    records = []
    for run in _find_runs("FINISHED"):
        tags, when = run.data.tags, datetime.fromtimestamp(run.info.start_time / 1000, UTC)
        fields = (tags[name] for name in ("developer", "from", "to", "verdict", "reason"))
        records.append(Record(tags["event"], when, *fields))
    return records


def list_champions() -> list[str]:
    """The version numbers that a rollback would go back through, the present champion last."""
    return _add_unrecorded(_list_recorded(), _name_champion())


def settle_moves(models: Path) -> Path | None:
    """Finish moves that were killed on the way; return the bundle that serves, the champion's."""
    with _moving(models) as settled:
        return settled.bundle


def serve_champion(models: Path) -> tuple[Version, Path]:
    """Let the champion's bundle serve from this folder, where another machine promoted it, or the bundles were lost."""
    with _hold_moves(models):
        champion = find_version(CHAMPION)
        bundle = export_version(champion, models)
        _serve(bundle)
        return champion, bundle


@dataclass(frozen=True)
class _Settled:
    """The champion's bundle, and the events of moves that were killed and are finished now."""

    bundle: Path | None
    finished: tuple[str, ...]


@contextmanager
def _hold_moves(models: Path) -> Iterator[None]:
    """Hold the lock of all moves, here and between machines."""
    with hold_lock(models / ".moving.lock"), hold_between_machines():
        yield


@contextmanager
def _moving(models: Path) -> Iterator[_Settled]:
    """Hold back other moves, have the champion's bundle serve, and finish moves that were killed."""
    with _hold_moves(models):
        champion, finished = find_champion(), []
        bundle = export_version(champion, models) if champion else None
        if bundle:
            _serve(bundle)
        for run in _find_runs("RUNNING"):
            moved = champion is not None and champion.number == run.data.tags["to"]
            if moved:
                finished.append(run.data.tags["event"])
            end_run(run.info.run_id, "" if moved else "killed before the alias moved")
        yield _Settled(bundle, tuple(finished))


def _move(event: str, version: Version, bundle: Path, verdict: Verdict | None, reason: str) -> Path:
    run_id = _open_record(event, version.number, _name_champion(), verdict, reason)
    set_alias(CHAMPION, version.number)
    _serve(bundle)
    end_run(run_id)
    return bundle


def _serve(bundle: Path) -> None:
    if not serves(bundle):
        select_bundle(bundle)


def _name_champion() -> str:
    champion = find_champion()
    return champion.number if champion else ""


def _list_recorded() -> list[str]:
    """The champions by the records alone, which know of a move by hand only where another move followed it."""
    champions: list[str] = []
    for record in list_records():
        if record.event == PROMOTED:
            champions = [*_add_unrecorded(champions, record.champion), record.version]
        elif record.event == ROLLED_BACK:
            former = _add_unrecorded(champions, record.champion)[: -1 if record.champion else None]
            champions = _add_unrecorded(former, record.version)
    return champions


def _add_unrecorded(champions: list[str], champion: str) -> list[str]:
    """Champions with the one of a later moment, if it is another than the last."""
    return champions if champion in ("", *champions[-1:]) else [*champions, champion]


def _open_record(event: str, version: str, champion: str, verdict: Verdict | None, reason: str = "") -> str:
    """Start the record of a move: a run whose tags and metrics say all of it before anything moves."""
    tags = {
        **describe_code(),
        "event": event,
        "from": champion,
        "to": version,
        "verdict": "; ".join(verdict.sentences()) if verdict else "",
        "reason": reason,
    }
    experiment_id = find_experiment(PROMOTIONS).experiment_id
    run = mlflow.MlflowClient().create_run(experiment_id, run_name=f"{event} of version {version}", tags=tags)
    run_id = str(run.info.run_id)
    for comparison in verdict.comparisons if verdict else ():
        figures = ("wines", "challenger", "rival", "difference", "bound", "needed")
        under = f"{comparison.scored_on}.{comparison.measure}"
        log_values(run_id, metrics={f"{under}.{name}": getattr(comparison, name) for name in figures})
    return run_id


def _find_runs(status: str) -> list[Run]:
    """The records of this status, the oldest first."""
    experiment_id, condition = find_experiment(PROMOTIONS).experiment_id, f"attributes.status = '{status}'"
    return mlflow.search_runs([experiment_id], condition, order_by=["attributes.start_time ASC"], output_format="list")
