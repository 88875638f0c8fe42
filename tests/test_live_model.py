"""The champion changes while the API answers."""

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.conftest import Served, run_api
from tests.test_predict import read_metric
from tests.test_schema import WINE
from wine_quality_training.bundle import COMPILED_FILE, FACTS_FILE, select_bundle

SECONDS = 15.0  # two where the machine has nothing else to do


def wait_until(true: Callable[[], bool], seconds: float = SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


def ask_version(address: str) -> str:
    """The version that answers on a connection of its own, so any of the processes."""
    return str(httpx.post(f"{address}/predict", json=WINE).raise_for_status().json()["model"]["version"])


def is_served_by_all(address: str, version: str) -> bool:
    """Ask often enough to meet every process."""
    return {ask_version(address) for _ in range(20)} == {version}


@pytest.mark.parametrize("workers", [1, 2])
def test_under_load_no_request_fails_while_the_champion_changes(served: Served, workers: int) -> None:
    with run_api(served.environment, workers=workers) as (address, _):
        answers: Counter[tuple[int, str]] = Counter()
        stopped = threading.Event()

        def keep_asking() -> None:
            with httpx.Client(timeout=60) as client:
                while not stopped.is_set():
                    answer = client.post(f"{address}/predict", json=WINE)
                    answers[answer.status_code, answer.json()["model"]["version"]] += 1

        threads = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in ("2", "1", "2", "1", "2", "1"):
            select_bundle(served.models / version)
            assert wait_until(partial(is_served_by_all, address, version))
        stopped.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {"1", "2"}


def test_a_champion_without_compiled_form_takes_over_once_scikit_learn_is_imported(served: Served) -> None:
    with run_api(served.environment) as (address, _):
        select_bundle(served.models / "3")
        assert wait_until(lambda: ask_version(address) == "3", seconds=30)


def damage_compiled(bundle: Path) -> None:
    path = bundle / COMPILED_FILE
    path.write_bytes(path.read_bytes()[:-1])


def forget_facts(bundle: Path) -> None:
    (bundle / FACTS_FILE).unlink()


def answer_otherwise(bundle: Path) -> None:
    """Give the bundle the compiled form of another model, with its right digest: only its answers tell."""
    facts = (bundle / FACTS_FILE).read_text()
    other = bundle.with_name("1")
    for one, two in zip(_digests(facts), _digests((other / FACTS_FILE).read_text()), strict=True):
        facts = facts.replace(one, two)
    (bundle / FACTS_FILE).write_text(facts)
    for path in other.iterdir():
        if path.name != FACTS_FILE:
            shutil.copy(path, bundle)


def _digests(facts: str) -> list[str]:
    return list(json.loads(facts)["files"].values())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_compiled, "changed model.onnx"),
        (forget_facts, "facts.json is missing"),
        (answer_otherwise, "no longer answers as it did"),
    ],
)
def test_a_bad_bundle_is_refused_and_the_old_one_serves_on(
    served: Served, damage: Callable[[Path], None], told: str
) -> None:
    with run_api(served.environment) as (address, _):
        damage(served.models / "2")
        select_bundle(served.models / "2")
        assert wait_until(lambda: told in httpx.get(f"{address}/ready").json()["refused"])
        assert httpx.get(f"{address}/ready").json()["ready"]
        assert ask_version(address) == "1"
        assert read_metric(address, "wine_model_refused") == 1
        assert read_metric(address, 'wine_model_loads_total{outcome="refused"}') == 1
        select_bundle(served.models / "1")
        assert wait_until(lambda: httpx.get(f"{address}/ready").json()["refused"] == "")
        assert read_metric(address, "wine_model_refused") == 0


def test_a_process_that_was_killed_is_replaced_and_knows_the_champion(served: Served) -> None:
    with run_api(served.environment, workers=2) as (address, server):
        select_bundle(served.models / "2")
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(int(workers[0]), signal.SIGKILL)
        time.sleep(1)
        assert wait_until(lambda: {ask_version(address) for _ in range(10)} == {"2"}, seconds=20)
        assert read_metric(address, "wine_model_refused") == 0
