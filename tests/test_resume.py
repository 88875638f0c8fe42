"""Which searches --resume takes over: dead ones, and none that another process works on."""

import json
import subprocess
import sys
from subprocess import PIPE

import mlflow
import psutil
import pytest

from commands import BadInputError
from experiment_tracking.search.tuning import PROCESS, SearchRun, resume_search, start_search
from tests.conftest import Store
from tests.messages import list_missing, naming
from tests.processes import read_line, start_python
from wine_data.sources.load import WineData

IDENTITY = {"seed": 1}


@pytest.fixture
def search(store: Store, twin: WineData) -> SearchRun:
    return start_search(store.experiment_id, twin, IDENTITY)


def name_worker(search: SearchRun, **changes: object) -> None:
    """Name another process, or another machine, as the one that works on a search."""
    client = mlflow.MlflowClient()
    process = json.loads(client.get_run(search.run_id).data.tags[PROCESS]) | changes
    client.set_tag(search.run_id, PROCESS, json.dumps(process))


def test_a_search_that_another_process_works_on_is_not_taken_over(search: SearchRun) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        name_worker(search, pid=process.pid, since=round(psutil.Process(process.pid).create_time()))
        with pytest.raises(BadInputError, match=naming(search.run_id, f"process {process.pid}")):
            resume_search(search.experiment_id, search.data, IDENTITY)
        name_worker(search, since=0)  # the number of a process that is dead was given to another
        resume_search(search.experiment_id, search.data, IDENTITY)
        name_worker(search, pid=process.pid, since=round(psutil.Process(process.pid).create_time()))
    finally:
        process.kill()
        process.wait()
    assert resume_search(search.experiment_id, search.data, IDENTITY).run_id == search.run_id


def test_a_search_of_another_machine_is_taken_over_once_its_tag_is_deleted(search: SearchRun) -> None:
    name_worker(search, host="elsewhere")
    with pytest.raises(BadInputError, match=naming("elsewhere", PROCESS)):
        resume_search(search.experiment_id, search.data, IDENTITY)
    mlflow.MlflowClient().delete_tag(search.run_id, PROCESS)
    assert resume_search(search.experiment_id, search.data, IDENTITY).run_id == search.run_id


TAKER = """
import sys
import mlflow
from commands import BadInputError
from experiment_tracking.search.tuning import resume_search

mlflow.set_tracking_uri(sys.argv[1])
mlflow.search_runs([sys.argv[2]])  # all that is loaded late is loaded before the start
print("ready", flush=True)
sys.stdin.readline()
try:
    resume_search(sys.argv[2], None, {"seed": 1})
    print("taken", flush=True)
except BadInputError as error:
    print(error, flush=True)
sys.stdin.readline()  # alive until both have asked
"""


def test_one_of_two_that_resume_a_search_at_the_same_time_gets_it(search: SearchRun) -> None:
    name_worker(search, since=0)
    takers = [start_python("-c", TAKER, mlflow.get_tracking_uri(), search.experiment_id, stdin=PIPE) for _ in range(2)]
    try:
        assert [read_line(taker) for taker in takers] == ["ready"] * 2
        for taker in takers:
            assert taker.stdin is not None
            print("go", file=taker.stdin, flush=True)
        refusal, taken = sorted((read_line(taker) for taker in takers), key="taken".__eq__)
    finally:
        for taker in takers:
            taker.kill()
            taker.communicate()
    assert taken == "taken"
    assert list_missing(refusal, search.run_id, "process") == []
