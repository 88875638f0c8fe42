"""A challenger asked the logged wines: by function, by command, and in the verdict on it."""

import time

import pandas as pd
import pytest

from commands import BadInputError, NotThereError
from deployment.prediction_log.tables import PREDICTIONS
from experiment_tracking.registry.promotion import list_records, promote
from experiment_tracking.registry.versions import find_version, judge_version, note_replay
from monitoring.replay import Replay, replay_log
from orchestration.tasks.steps import replay_challenger
from settings import Settings
from tests.answers import answer_wines, log_rows, log_wines
from tests.conftest import isolated_environment, run_here
from tests.messages import assert_failed_in_one_line, find_lines, naming
from tests.test_registry import GOOD, POOR, Registry, fitted, registry
from wine_data.schema import feature_frame
from wine_quality_training.bundle.bundle import load_current

__all__ = ["fitted", "registry"]
WINES = 300


@pytest.fixture
def settings(registry: Registry) -> Settings:
    """Of a store with a champion and a challenger; the log has 300 answers of the champion, half graded, and others."""
    registry.promote(registry.register(POOR))
    registry.register(GOOD)
    url = isolated_environment(registry.store.folder)["WINE_LOG_URL"]
    champion, wines = load_current(registry.store.models), registry.split.holdout.head(WINES)
    log_wines(url, champion, wines, time.time() - 3600, labels=0.5)
    month = 30 * 86_400.0
    log_wines(url, champion, wines.head(50), time.time() - month)
    other = answer_wines(champion, wines.head(9), time.time() - 7200 + pd.RangeIndex(9).to_numpy("float64"))
    log_rows(url, PREDICTIONS, other.assign(version="7", run_id="another"))
    return Settings(log_url=url, serving_models=registry.store.models)


@pytest.mark.full
def test_a_replay_counts_agreement_and_compares_quality(registry: Registry, settings: Settings) -> None:
    replay = replay_log(settings, "challenger")
    wines = feature_frame(registry.split.holdout.head(WINES))
    ours, theirs = (registry.fitted[name].pipeline.predict(wines) for name in (POOR, GOOD))
    assert (replay.champion, replay.challenger, replay.answers) == ("1", "2", WINES)
    assert replay.agreement == pytest.approx((ours == theirs).mean())
    assert sum(replay.moved.values()) == WINES
    distances = [abs(theirs - ours) for _, ours, theirs in replay.furthest]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.3
    assert 100 < replay.graded < 200
    assert replay.differences[0].gain > 0.02  # kappa of the good one over that of the poor one
    assert replay_log(settings, "2", days=60).answers == WINES + 50


@pytest.mark.full
@pytest.mark.usefixtures("settings")
def test_the_command_prints_the_replay_and_refuses_what_serves(registry: Registry) -> None:
    environment = isolated_environment(registry.store.folder)
    done = run_here("monitoring.replay", environment, "challenger")
    assert done.returncode == 0, done.stderr
    assert find_lines(done.stdout, "version 2", "version 1", "300", "same grade")
    assert find_lines(done.stdout, "kappa", "accuracy", "RPS", "tasters graded")
    assert find_lines(done.stdout, "Next", "promote 2")
    assert find_lines("\n".join(judge_version(find_version("2"), registry.split.holdout).notes), "300", "same grade")
    assert_failed_in_one_line(run_here("monitoring.replay", environment, "champion"), 2, "version 1", "serves already")
    assert_failed_in_one_line(run_here("monitoring.replay", environment, "2", "--days", "0"), 2, "--days")
    assert_failed_in_one_line(run_here("monitoring.replay", environment, "9"), 3, "version 9")


@pytest.mark.full
def test_the_verdict_has_the_replay_where_there_is_a_log(registry: Registry, settings: Settings) -> None:
    challenger = find_version("challenger")
    without = Settings(log_url=f"sqlite:///{registry.store.folder / 'none.db'}", serving_models=registry.store.models)
    replay_challenger(challenger, without)
    assert judge_version(challenger, registry.split.holdout).notes == ()
    replay_challenger(challenger, settings)
    verdict = judge_version(challenger, registry.split.holdout)
    assert find_lines("\n".join(verdict.sentences()), "300", "same grade")
    promote(challenger, verdict, registry.store.models)
    assert find_lines(list_records()[-1].verdict.replace("; ", "\n"), "300", "same grade")


@pytest.mark.full
def test_a_replay_beside_another_champion_is_in_no_verdict(registry: Registry) -> None:
    registry.promote(registry.register(POOR))
    registry.register(GOOD)
    note_replay("2", "7", ["beside version 7"])
    assert judge_version(find_version("2"), registry.split.holdout).notes == ()


@pytest.mark.full
def test_a_log_without_an_answer_in_that_time_is_no_replay(settings: Settings) -> None:
    with pytest.raises(NotThereError, match=naming("version 1", "--days")):
        replay_log(settings, "2", now=time.time() - 86_400)
    with pytest.raises(BadInputError, match=naming("version 1", "serves already")):
        replay_log(settings, "1")


@pytest.mark.fast
def test_with_few_grades_no_quality_is_claimed() -> None:
    replay = Replay("1", "2", answers=10, graded=9)
    replay.moved.update({(6, 6): 7, (6, 5): 3})
    assert replay.agreement == 0.7
    assert find_lines("\n".join(replay.sentences()), "tasters graded 9", "30")
    assert find_lines("\n".join(replay.sentences()), "6 becomes 5", "3 times")
