"""Each step of retraining, release, export, promotion, rollback, batch and log fails once; nothing half done serves."""

import os
import random
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeClassifier

from commands import BadInputError, NotThereError, RefusedError, explain_outside
from deployment.prediction_log.log import LoggedAnswer, PredictionLog
from experiment_tracking.registry.promotion import (
    _name_champion,
    _open_record,
    list_champions,
    promote,
    settle_moves,
)
from experiment_tracking.registry.versions import (
    CHAMPION,
    export_version,
    find_champion,
    judge_version,
    register_model,
    set_alias,
)
from experiment_tracking.runs.store import PROMOTIONS, find_experiment, open_store
from experiment_tracking.runs.tracking import track_model
from tests.faults import ONCE, WAYS, make_faults, run_alone
from tests.folders import isolated_environment, seed_store
from tests.messages import assert_failed_in_one_line, find_lines
from tests.processes import run_program
from tests.running import run_here
from tests.wines import load_as_default, write_few_wines
from wine_data.schema import FEATURES, encode_type, feature_frame
from wine_data.snapshots.snapshot import keep_snapshot, read_snapshot
from wine_data.sources.load import WineData
from wine_data.split import Split, split_wines
from wine_data.table.wines import COLUMNS
from wine_quality_training.bundle.bundle import CURRENT, load_bundle, load_current
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import impute_before

Ended = tuple[int, str]  # a command's exit code, and what it printed
REASON = ("--reason", "a trial")


@dataclass(frozen=True)
class Operation:
    """What is tried on a folder, the numbers of the champions before and after it, and how it may end again."""

    run: Callable[[Path], Ended]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    once: bool = False  # the same command again does more
    done_already: str = field(default="nothing", kw_only=True)  # what is said where the first try had done it
    check: Callable[[Path], None] | None = field(default=None, kw_only=True)  # of what a finished one has written


def run_wine_command(module: str, *arguments: str) -> Callable[[Path], Ended]:
    return partial(_run_wine_command, module, arguments)


def _run_wine_command(module: str, arguments: tuple[str, ...], folder: Path) -> Ended:
    environment = isolated_environment(folder) | {"WINE_DATA": str(folder / "wines"), "WINE_FOLDS": "2"}
    ended = run_here(module, environment, *(argument.format(folder=folder) for argument in arguments))
    return ended.returncode, ended.stdout + ended.stderr


def call_as_command(function: Callable[[Path], object], folder: Path) -> Ended:
    """Call a function that a flow or the API calls, and end as commands do."""
    try:
        return 0, str(function(folder))
    except (RefusedError, BadInputError, NotThereError) as error:
        return error.exit_code, f"error: {error}"
    except Exception as error:
        if not explain_outside(error):
            raise
        return 3, f"error: {explain_outside(error)}"


def retrain(folder: Path) -> str:
    """The first part of a retraining: keep the wines, read them again, fit a model, track it."""
    experiment_id, loaded = open_here(folder), load_as_default(str(folder / "wines"))
    keep_snapshot(loaded, folder / "kept")
    data = read_snapshot(folder / "kept", loaded.fingerprint)
    return track_tree(experiment_id, data, split_wines(data.train, data.validation, folds=2, seed=42), depth=4)


def release(folder: Path) -> Path:
    """The steps of release_flow, the last part of a retraining, without Prefect, whose retries hide faults."""
    open_here(folder)
    models, run_id = folder / "deployment" / "models", (folder / "retrained").read_text()
    settle_moves(models)
    challenger = register_model(run_id)
    champion = find_champion()
    if champion and champion.number == challenger.number:
        return models
    verdict = judge_version(challenger, split_few(folder).holdout)
    export_version(challenger, models)
    return promote(challenger, verdict, models, "an alarm")


def write_log(folder: Path) -> str:
    """Write five answers as the API does, and say what its own count makes of them."""
    log = PredictionLog(f"sqlite:///{folder / 'predictions.db'}", days=90, rows=1_000)
    log.open()
    start = count_rows(folder)
    for number in range(5):
        log.add_answer(LoggedAnswer(time.time(), f"{start} {number}", "2", "run", (1.0,) * 12, 6, "{}", 5.75, 1.5))
    log.close()
    assert log.counts.written + log.counts.lost == 5
    assert count_rows(folder) == start + log.counts.written
    return f"lost {log.counts.lost} {log.counts.problem}"


def count_rows(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "predictions.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(database.execute("SELECT count(*) FROM predictions").fetchone()[0])


def check_answers(folder: Path) -> None:
    """Every valid row has one answer, which is what the bundle's model predicts."""
    wines = pd.read_csv(folder / "to_score.csv")
    valid = wines[wines[FEATURES[0]] >= 0]
    answers = pd.concat([pd.read_parquet(part) for part in sorted(folder.rglob("answers/part-*.parquet"))])
    assert answers["row"].tolist() == (valid.index + 2).tolist()
    predicted = load_current(folder / "deployment" / "models").pipeline.predict(feature_frame(encode_type(valid)))
    assert answers["prediction"].tolist() == predicted.tolist()


REGISTRY, BATCH = "experiment_tracking.registry", "deployment.batch"
OPERATIONS = {
    "export": Operation(run_wine_command(REGISTRY, "export"), ("1", "2"), ("1", "2")),
    "promotion": Operation(
        run_wine_command(REGISTRY, "promote", "3", *REASON),
        ("1", "2"),
        ("1", "2", "3"),
        done_already="version 3 is the champion already",
    ),
    "rollback": Operation(run_wine_command(REGISTRY, "rollback", *REASON), ("1", "2", "3"), ("1", "2"), once=True),
    "retraining": Operation(partial(call_as_command, retrain), ("1", "2"), ("1", "2")),
    "release": Operation(partial(call_as_command, release), ("1", "2"), ("1", "2", "4")),
    "batch": Operation(run_wine_command(BATCH, "{folder}/to_score.csv"), check=check_answers),
    "log": Operation(partial(call_as_command, write_log)),
}


def open_here(folder: Path) -> str:
    return open_store(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts")


def split_few(folder: Path) -> Split:
    data = load_as_default(str(folder / "wines"))
    return split_wines(data.train, data.validation, folds=2, seed=42)


def track_tree(experiment_id: str, data: WineData, split: Split, depth: int) -> str:
    """The id of the run that tracks a tree of this depth."""
    tree = impute_before(DecisionTreeClassifier(max_depth=depth, random_state=1))
    return track_model(experiment_id, None, data, split, [evaluate_leak_free("Tree", tree, split)]).run_id


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, empty_stores: Path) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    seed_store(folder, empty_stores)
    return make_template(folder)


def make_template(folder: Path) -> Path:
    """Four trees: the champions 1 and 2, version 3, a retrained run that is no version yet; wines to score."""
    write_few_wines(folder / "wines")
    run_alone(fill_template, folder)
    return folder


def fill_template(folder: Path) -> None:
    experiment_id, data, split = open_here(folder), load_as_default(str(folder / "wines")), split_few(folder)
    for depth in (1, 2, 3, 4):
        run_id = track_tree(experiment_id, data, split, depth)
        if depth == 4:
            (folder / "retrained").write_text(run_id)
        elif (version := register_model(run_id)) and depth < 3:
            promote(version, judge_version(version, split.holdout), folder / "deployment" / "models", "a template")
    table = data.validation.head(40)[list(COLUMNS)]
    table.loc[3, FEATURES[0]] = -1  # refused
    table.to_csv(folder / "to_score.csv", index=False)


def copy_template(template: Path, folder: Path, name: str) -> Path:
    shutil.copytree(template, folder)
    if name == "export":
        shutil.rmtree(folder / "deployment" / "models")
    if name == "rollback":
        assert run_alone(OPERATIONS["promotion"].run, folder)[0] == 0
    return folder


def attempt(operation: Operation, folder: Path, fail_at: int, way: str) -> tuple[str, Ended]:
    with make_faults(folder, fail_at, way) as faults:
        ended = operation.run(folder)
    return faults.place, ended


def recover(operation: Operation, folder: Path) -> None:
    """See that what serves is whole, do it again, and see that it is done, once."""
    if operation.before:
        check_serving(operation, folder, finished=False)
        if operation.once and tuple(list_champions()) == operation.after and not list_open_moves():
            return check_serving(operation, folder, finished=True)  # `history` says that it is done
    code, output = operation.run(folder)
    assert code == 0 or operation.done_already in output, output
    if operation.check:
        operation.check(folder)
    if operation.before:
        check_serving(operation, folder, finished=True)


def list_open_moves() -> list[Any]:
    moves = find_experiment(PROMOTIONS).experiment_id
    return list(mlflow.search_runs([moves], "attributes.status = 'RUNNING'", output_format="list"))


def check_serving(operation: Operation, folder: Path, *, finished: bool = False) -> None:
    """Every bundle loads, its digests checked; alias, record and served model agree once an operation is finished."""
    models = folder / "deployment" / "models"
    for bundle in models.glob("[0-9]*"):
        load_bundle(bundle)
    served = load_current(models).metadata.version if (models / CURRENT).exists() else ""
    assert served in (operation.before[-1], operation.after[-1]) or not (served or finished)
    open_here(folder)
    champion = find_champion()
    assert champion is not None
    assert champion.number in (operation.before[-1], operation.after[-1])
    if finished:
        assert (champion.number, served) == (operation.after[-1], operation.after[-1])
        assert tuple(list_champions()) == operation.after
        assert not list_open_moves()


def try_step(template: Path, folder: Path, operation: str, fail_at: int, way: str) -> bool:
    """Let one step fail, see what it leaves, and recover; False where nothing failed because there were fewer."""
    tried = OPERATIONS[operation]
    copy_template(template, folder, operation)
    outcome = run_alone(attempt, tried, folder, fail_at, way)
    if outcome:  # the process lived
        place, (code, output) = outcome
        assert code == 0 or (place and code == 3 and output.splitlines()[-1].startswith("error: ")), output
    run_alone(recover, tried, folder)
    shutil.rmtree(folder)
    return not outcome or bool(place)


def count_steps(template: Path, folder: Path, operation: str) -> int:
    """How many steps an operation has that nothing disturbs."""
    copy_template(template, folder, operation)
    return int(run_alone(_count_steps, OPERATIONS[operation], folder))


def _count_steps(operation: Operation, folder: Path) -> int:
    with make_faults(folder, 0, ONCE) as faults:
        code, output = operation.run(folder)
    assert code == 0, output
    if operation.check:
        operation.check(folder)
    return faults.steps


@pytest.mark.full
@pytest.mark.parametrize("operation", OPERATIONS)
def test_after_some_faults_what_serves_is_whole_and_the_next_command_finishes(
    template: Path, tmp_path: Path, operation: str
) -> None:
    way, every = random.choice(WAYS), {"batch": 4, "log": 1}.get(operation, 15)
    steps, failed = count_steps(template, tmp_path / "undisturbed", operation), 0
    for fail_at in range(random.randint(1, every), steps + 1, every):
        try:
            failed += try_step(template, tmp_path / str(fail_at), operation, fail_at, way)
        except Exception as error:
            error.add_note(f"the fault was: {operation}, step {fail_at}, {way}")
            raise
    assert failed > 0


def test_a_promotion_that_was_killed_after_the_alias_moved_serves_when_it_is_asked_for_again(
    template: Path, tmp_path: Path
) -> None:
    folder = copy_template(template, tmp_path / "here", "promotion")
    run_alone(move_alias_alone, folder)
    code, output = run_alone(OPERATIONS["promotion"].run, folder)
    assert (code, OPERATIONS["promotion"].done_already in output) == (1, True)
    assert load_current(folder / "deployment" / "models").metadata.version == "3"


def test_a_rollback_that_was_killed_after_the_alias_moved_is_finished_and_not_done_twice(
    template: Path, tmp_path: Path
) -> None:
    folder = copy_template(template, tmp_path / "here", "rollback")
    run_alone(move_alias_alone, folder, "rollback", "2")
    run_alone(recover, OPERATIONS["rollback"], folder)


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write all files")
def test_where_mlflows_store_is_read_only_or_gone_the_champion_serves_on_and_a_promotion_says_so(
    template: Path, tmp_path: Path
) -> None:
    folder = copy_template(template, tmp_path / "here", "promotion")
    store, promotion = folder / "mlflow.db", OPERATIONS["promotion"]
    store.chmod(0o444)
    obeying = ["setpriv", "--bounding-set=-dac_override"]  # root may else write what is read-only
    command = [*(obeying if os.geteuid() == 0 else []), sys.executable, "-m", REGISTRY, "promote", "3", *REASON]
    assert_failed_in_one_line(run_program(*command, env=isolated_environment(folder)), 3, "readonly database")
    store.chmod(0o644)
    run_alone(check_serving, promotion, folder)
    store.rename(folder / "away.db")
    code, output = run_alone(promotion.run, folder)
    assert (code, find_lines(output, "no version 3", "make pipeline")) == (3, [output.strip()])
    assert load_current(folder / "deployment" / "models").metadata.version == "2"
    (folder / "away.db").replace(store)
    run_alone(recover, promotion, folder)


def move_alias_alone(folder: Path, event: str = "promotion", version: str = "3") -> None:
    """Leave what a move leaves that is killed before its bundle serves."""
    open_here(folder)
    _open_record(event, version, _name_champion(), None)
    set_alias(CHAMPION, version)
