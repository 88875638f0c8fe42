"""The champion changes while the API answers."""

import asyncio
import ctypes
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from deployment.api.live_model import LiveModel
from deployment.predictor import Predictor, load_predictor
from tests.conftest import Served, run_api
from tests.messages import list_missing
from tests.processes import run_program
from tests.test_predict import read_metric
from tests.test_schema import WINE
from tests.waiting import wait_until
from tests.web import WEB
from wine_quality_training.bundle.bundle import COMPILED_FILE, METADATA_FILE, find_current, select_bundle


def ask_version(address: str) -> str:
    """The version that answers on a connection of its own, so any of the processes."""
    return str(WEB.post(f"{address}/predict", json=WINE).raise_for_status().json()["model"]["version"])


def is_served_by_all(address: str, version: str) -> bool:
    """Ask often enough to meet every process."""
    return {ask_version(address) for _ in range(20)} == {version}


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.full), 2])
def test_under_load_no_request_fails_while_the_champion_changes(served: Served, workers: int) -> None:
    stopped = threading.Event()

    def keep_asking(address: str) -> set[str]:
        """The versions that answered; anything but an answer ends it with an error."""
        versions = set()
        with httpx.Client(timeout=60) as client:
            while not stopped.is_set():
                answer = client.post(f"{address}/predict", json=WINE).raise_for_status().json()
                versions.add(answer["model"]["version"])
        return versions

    with run_api(served.environment, workers=workers) as (address, _), ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(keep_asking, address) for _ in range(4)]
        try:
            for version in ("2", "1", "2", "1"):
                select_bundle(served.models / version)
                wait_until(partial(is_served_by_all, address, version), f"version {version} from all", seconds=15)
        finally:
            stopped.set()
        assert set.union(*(one.result() for one in asking)) == {"1", "2"}


@pytest.mark.full
def test_a_champion_without_compiled_form_takes_over_once_scikit_learn_is_imported(served: Served) -> None:
    with run_api(served.environment) as (address, _):
        select_bundle(served.models / "3")
        wait_until(lambda: ask_version(address) == "3", "version 3")


def damage_compiled(bundle: Path) -> None:
    path = bundle / COMPILED_FILE
    path.write_bytes(path.read_bytes()[:-1])


def remove_metadata(bundle: Path) -> None:
    (bundle / METADATA_FILE).unlink()


def put_another_model_in(bundle: Path) -> None:
    """Give the bundle the files of another, with their right digests, and leave the answers that they should give."""
    metadata, other = json.loads((bundle / METADATA_FILE).read_text()), bundle.with_name("1")
    metadata["files"] = json.loads((other / METADATA_FILE).read_text())["files"]
    shutil.copytree(other, bundle, dirs_exist_ok=True)
    (bundle / METADATA_FILE).write_text(json.dumps(metadata))


class AnyError(Exception):
    """What no code of the project foresees."""


def test_nothing_that_a_new_model_raises_ends_the_watch(bundles: Path, tmp_path: Path) -> None:
    shutil.copytree(bundles, tmp_path, dirs_exist_ok=True)
    raised: list[Exception] = [AnyError("of a library"), ModuleNotFoundError("No module named 'x'"), MemoryError()]

    def load(models: Path) -> Predictor:
        if find_current(models).name == "2" and raised:
            raise raised.pop()
        return load_predictor(models)

    def count(refused: bool) -> None:
        if refused:
            raise AnyError("of the metrics")

    async def follow() -> list[str]:
        live, refusals = LiveModel(tmp_path, count, load), list[str]()
        watch = asyncio.create_task(live.watch())
        while live.writer.predictor.metadata.version == "1":
            live.refused = ""
            select_bundle(tmp_path / "2")  # written anew, so that it is loaded again
            async with asyncio.timeout(20):
                while not live.refused and live.writer.predictor.metadata.version == "1":
                    await asyncio.sleep(0.02)
            refusals.append(live.refused)
        (tmp_path / "current").write_bytes(b"\xff\xfe\n")
        async with asyncio.timeout(20):
            while not live.refused:
                await asyncio.sleep(0.02)
        watch.cancel()
        return [*refusals, live.refused]

    refusals = asyncio.run(follow())
    facts = ["MemoryError", "No module", "of a library", "", "UnicodeDecodeError"]
    for refusal, fact in zip(refusals, facts, strict=True):
        assert fact in refusal


@pytest.mark.parametrize(
    ("damage", "facts"),
    [
        (damage_compiled, ("model.onnx", "SHA-256")),
        (remove_metadata, ("facts.json",)),
        (put_another_model_in, ("version 2", "make pipeline")),
    ],
)
def test_a_bad_bundle_is_refused(served: Served, damage: Callable[[Path], None], facts: tuple[str, ...]) -> None:
    with run_api(served.environment) as (address, _):
        damage(served.models / "2")
        select_bundle(served.models / "2")
        wait_until(lambda: WEB.get(f"{address}/ready").json()["refused"], "a refusal")
        assert list_missing(WEB.get(f"{address}/ready").json()["refused"], *facts) == []
        assert WEB.get(f"{address}/ready").json()["ready"]
        assert ask_version(address) == "1"
        assert read_metric(address, "wine_model_refused") == 1
        assert read_metric(address, 'wine_model_loads_total{outcome="refused"}') == 1
        select_bundle(served.models / "1")
        wait_until(lambda: WEB.get(f"{address}/ready").json()["refused"] == "", "no refusal")
        assert read_metric(address, "wine_model_refused") == 0


def list_workers(server: int) -> list[int]:
    """The processes of an API that answer, without those that help them."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.full
def test_a_process_that_was_killed_is_replaced_and_knows_the_champion(served: Served) -> None:
    with run_api(served.environment, workers=2) as (address, server):
        select_bundle(served.models / "2")
        killed, _ = list_workers(server.pid)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in list_workers(server.pid), "the end of the killed process")
        wait_until(lambda: {ask_version(address) for _ in range(10)} == {"2"}, "version 2 from all")
        wait_until(lambda: len(list_workers(server.pid)) == 2, "another process in its place")
        assert read_metric(address, "wine_model_refused") == 0


KEPT = """
import ctypes, sys
from pathlib import Path
from deployment.api.live_model import LiveModel
from wine_quality_training.bundle.bundle import select_bundle

def measure():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024

models = Path(sys.argv[1])
live = LiveModel(models)
for version in "21212":
    select_bundle(models / version)
    live.follow()
    assert live.writer.predictor.metadata.version == version
after = measure()
ctypes.CDLL(None).malloc_trim(0)
print(after - measure())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc can return memory when asked")
def test_the_memory_of_the_model_before_it_is_returned_to_the_system(served: Served) -> None:
    done = run_program(sys.executable, "-c", KEPT, str(served.models), env=served.environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2  # megabytes; 3.5 of two small forests were kept until the next reload
