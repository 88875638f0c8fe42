"""Promotion and rollback of versions without models: what serves, what is recorded, and moves by hand or killed."""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest

from commands import RefusedError
from experiment_tracking.registry import promotion
from experiment_tracking.registry.gate import Comparison, Verdict
from experiment_tracking.registry.promotion import (
    PROMOTED,
    REFUSED,
    ROLLED_BACK,
    Record,
    list_champions,
    list_records,
    promote,
    roll_back,
    serve_champion,
    settle_moves,
)
from experiment_tracking.registry.versions import CHAMPION, MODEL, Version, find_champion, find_version, set_alias
from experiment_tracking.runs.tracking import describe_code
from tests.conftest import Store
from tests.messages import naming
from wine_quality_training.bundle.bundle import select_bundle, serves


@pytest.fixture
def models(store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four versions without models, of which 1, 2 and 3 became champion one after the other."""
    monkeypatch.setattr(promotion, "export_version", lambda version, models: models / version.number)
    client = mlflow.MlflowClient()
    client.create_registered_model(MODEL)
    for _ in range(4):
        client.create_model_version(MODEL, "s3://bucket/model")
    store.models.mkdir(parents=True)
    for number in "123":
        promote_without_gate(store.models, number)
    return store.models


def promote_without_gate(models: Path, number: str) -> None:
    with promotion._moving(models):
        promotion._move(PROMOTED, find_version(number), models / number, None, "")


def roll_back_all(models: Path) -> list[str]:
    """The champion after each rollback, until there is none before it."""
    champions: list[str] = []
    for _ in range(9):
        try:
            version, folder = roll_back(models)
        except RefusedError:
            return champions
        champion = find_champion()
        assert isinstance(champion, Version)
        assert champion.number == version.number == folder.name == (models / "current").read_text().strip()
        champions.append(version.number)
    raise AssertionError(f"rollback finds no end: {champions}")


def test_each_rollback_goes_one_promotion_back(models: Path) -> None:
    assert roll_back_all(models) == ["2", "1"]
    back = [(one.event, one.champion, one.version, one.verdict, one.reason) for one in list_records()[3:]]
    assert back == [(ROLLED_BACK, "3", "2", "", ""), (ROLLED_BACK, "2", "1", "", "")]
    with pytest.raises(RefusedError, match=naming("no version was champion before")):
        roll_back(models)


GAIN = Comparison("holdout", 1060, "kappa", 0.57, 0.51, 0.02, 0.0)
ADMITTED, NOT_ADMITTED = (Verdict("4", "3", (replace(GAIN, bound=bound),)) for bound in (0.02, -0.01))


def test_a_promotion_is_recorded_with_its_verdict_and_its_figures(models: Path) -> None:
    begun = datetime.now(UTC)
    folder = promote(find_version("4"), ADMITTED, models, "a better year")
    assert (folder, serves(folder), find_version(CHAMPION).number) == (models / "4", True, "4")
    record = list_records()[-1]
    assert begun - timedelta(seconds=1) < record.when < datetime.now(UTC)
    assert record.who == describe_code()["developer"]
    verdict = "; ".join(ADMITTED.sentences())
    assert record == Record(PROMOTED, record.when, record.who, "3", "4", verdict, "a better year")
    run = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    assert (run.info.run_name, run.info.status) == ("promotion of version 4", "FINISHED")
    assert run.data.metrics == {
        f"holdout.kappa.{name}": getattr(GAIN, name)
        for name in ("wines", "challenger", "rival", "difference", "bound", "needed")
    }


def test_a_refusal_is_recorded_and_moves_nothing(models: Path) -> None:
    with pytest.raises(RefusedError) as refusal:
        promote(find_version("4"), NOT_ADMITTED, models)
    verdict = "; ".join(NOT_ADMITTED.sentences())
    assert str(refusal.value) == verdict
    record = list_records()[-1]
    assert record == Record(REFUSED, record.when, record.who, "3", "4", verdict, "")
    assert (list_champions(), serves(models / "3")) == (["1", "2", "3"], True)
    assert promote(find_version("4"), NOT_ADMITTED, models, "a person knows better") == models / "4"
    assert (list_records()[-1].event, list_records()[-1].reason) == (PROMOTED, "a person knows better")


def test_a_verdict_on_another_champion_is_refused(models: Path) -> None:
    with pytest.raises(RefusedError, match=naming("version 3 is the champion already")):
        promote(find_version("3"), ADMITTED, models)
    stale = replace(ADMITTED, champion="2")
    with pytest.raises(RefusedError, match=naming("version 3 became", "version 4", "version 2", "compare again")):
        promote(find_version("4"), stale, models)
    assert list_champions() == ["1", "2", "3"]


def kill_move(monkeypatch: pytest.MonkeyPatch, models: Path, step: str, event: str, number: str) -> None:
    """Let a move end in the middle, as a process that is killed does: nothing from this step on is done."""
    with monkeypatch.context() as context, pytest.raises(SystemExit):
        context.setattr(promotion, step, lambda *_: sys.exit("killed"))
        promotion._move(event, find_version(number), models / number, None, "")


@pytest.mark.parametrize(
    ("step", "champion", "problem"),
    [("set_alias", "3", "killed before the alias moved"), ("_serve", "4", ""), ("end_run", "4", "")],
)
def test_a_killed_promotion_is_settled(
    models: Path, monkeypatch: pytest.MonkeyPatch, step: str, champion: str, problem: str
) -> None:
    kill_move(monkeypatch, models, step, PROMOTED, "4")
    assert settle_moves(models) == models / champion
    assert (serves(models / champion), list_champions()[-1]) == (True, champion)
    run = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    assert (run.info.status, run.data.tags.get("problem", "")) == ("FAILED" if problem else "FINISHED", problem)


def test_a_killed_rollback_is_finished_and_not_done_twice(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_move(monkeypatch, models, "_serve", ROLLED_BACK, "2")
    version, folder = roll_back(models)
    assert (version.number, folder, serves(folder)) == ("2", models / "2", True)
    assert list_champions() == ["1", "2"]


def test_the_champion_of_another_machine_serves_here_too(models: Path) -> None:
    select_bundle(models / "1")
    version, folder = serve_champion(models)
    assert (version.number, folder, serves(folder)) == ("3", models / "3", True)


def test_without_a_champion_nothing_serves_and_the_first_is_recorded_from_none(models: Path) -> None:
    mlflow.MlflowClient().delete_registered_model_alias(MODEL, CHAMPION)
    assert settle_moves(models) is None
    promote(find_version("4"), replace(ADMITTED, champion=""), models)
    assert (list_records()[-1].champion, list_champions()) == ("", ["1", "2", "3", "4"])


@pytest.mark.parametrize("by_hand", ["1", "2", "4"])
def test_rollback_undoes_a_move_by_hand_and_says_so(models: Path, by_hand: str) -> None:
    set_alias(CHAMPION, by_hand)
    assert list_champions() == ["1", "2", "3", by_hand]
    roll_back(models, "it was slower")
    reason = f"the alias was moved by hand from version 3 to {by_hand}; it was slower"
    assert (list_records()[-1].champion, list_records()[-1].reason) == (by_hand, reason)
    assert list_champions() == ["1", "2", "3"]
    assert roll_back_all(models) == ["2", "1"]


def test_rollback_brings_back_a_champion_whose_alias_was_removed(models: Path) -> None:
    mlflow.MlflowClient().delete_registered_model_alias(MODEL, CHAMPION)
    assert roll_back_all(models) == ["3", "2", "1"]
    assert list_records()[3].reason == "the alias was moved by hand from version 3 to none"


def test_a_promotion_after_a_move_by_hand_is_rolled_back_to_that_version(models: Path) -> None:
    set_alias(CHAMPION, "1")
    promote_without_gate(models, "4")
    assert list_champions() == ["1", "2", "3", "1", "4"]
    assert roll_back_all(models) == ["1", "3", "2", "1"]
