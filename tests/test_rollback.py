"""Rollback after the champion alias was moved by hand, as anybody can in MLflow's page."""

from pathlib import Path

import mlflow
import pytest

from commands import RefusedError
from experiment_tracking.registry import promotion
from experiment_tracking.registry.promotion import PROMOTED, list_champions, list_records, roll_back
from experiment_tracking.registry.versions import CHAMPION, MODEL, Version, find_champion, find_version, set_alias
from tests.conftest import Store


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


def test_a_promotion_after_a_move_by_hand_is_rolled_back_to_that_version(models: Path) -> None:
    set_alias(CHAMPION, "1")
    promote_without_gate(models, "4")
    assert list_champions() == ["1", "2", "3", "1", "4"]
    assert roll_back_all(models) == ["1", "3", "2", "1"]
