"""Prefect's worker or server killed in the middle of runs, and what became of the slots and of the next runs."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pandas as pd
import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import State, StateType

from orchestration.tasks.lost_runs import end_lost_runs, find_bad_end
from tests.benchmarks.traffic import make_bundles
from tests.services import SCORE, Services, await_state, count_slots, kill_service, schedule_soon
from tests.waiting import wait_until
from tests.wines import load_as_default
from wine_data.table.wines import COLUMNS

UNDISTURBED = "undisturbed"
WINES = 200_000  # so many are scored for some seconds
PATIENCE = 420.0  # Prefect's hold on a slot is 300 s
MOMENTS = (StateType.PENDING, StateType.RUNNING)
KILLED, ALONE, SERVER = (
    "kill -9 of the worker and of all that it started",
    "kill -9 of the worker alone",
    "kill -9 of Prefect's server, which starts again 1 to 10 s later",
)


@dataclass
class Try:
    """One run, what was killed in the middle of it, the state that it had then, and what came of it."""

    fault: str
    deployment: UUID
    run: UUID = field(init=False)
    state: str = ""
    killed: float = field(init=False)
    is_free: bool = False
    seconds: float = PATIENCE  # from the kill to the free slot
    went_on: bool = False  # the run ended well by itself
    marked: bool = False  # as crashed, by itself or by end_lost_runs
    next_ran: bool = False
    wrong: int = 0  # answers that are missing or differ from those of an undisturbed run, once the next was done
    seen: str = ""  # by an operator: the last state of the run

    @property
    def is_sound(self) -> bool:
        """The slot is free, the run is over in one way or the other, and the next one was done, with right answers."""
        return self.is_free and self.went_on != self.marked and self.next_ran and not self.wrong


def kill_all(services: Services, _: random.Random) -> None:
    kill_service(services, "worker")
    services.do("worker")


def kill_alone(services: Services, _: random.Random) -> None:
    worker = psutil.Process(int(services.find_pid_file("worker").read_text()))
    worker.kill()
    worker.wait(30)
    services.do("worker")


def kill_server(services: Services, pick: random.Random) -> None:
    """The worker stays, and nobody starts it again."""
    worker = services.find_pid_file("worker").read_text()
    kill_service(services, "server")
    time.sleep(pick.uniform(1, 10))
    services.do("prefect")
    services.do("worker")
    assert services.find_pid_file("worker").read_text() == worker, "the worker ended with its server"


BREAKS: dict[str, Callable[[Services, random.Random], None]] = {
    KILLED: kill_all,
    ALONE: kill_alone,
    SERVER: kill_server,
}


def write_wines(services: Services) -> None:
    """Write a model, and a file of wines for it, where the deployment `score` looks for them."""
    make_bundles(Path(services.environment["WINE_SERVING_MODELS"]))
    folder = Path(services.environment["WINE_BATCH_WINES"])
    folder.mkdir(parents=True, exist_ok=True)
    wines = load_as_default("twin").train[list(COLUMNS)]
    wines.sample(WINES, replace=True, random_state=1).to_csv(folder / "wines.csv", index=False)


def find_answers(folder: Path, name: str) -> Path:
    return folder / "answers" / name


def read_answers(folder: Path) -> pd.Series:
    """The expected quality by row, from all files that a deployment wrote."""
    parts = [pd.read_parquet(part, columns=["row", "expected_quality"]) for part in folder.rglob("part-*.parquet")]
    return pd.concat(parts).set_index("row")["expected_quality"].sort_index()


def count_wrong(found: pd.Series, expected: pd.Series) -> int:
    """How many answers are missing, twice there or different."""
    once = found[~found.index.duplicated(keep=False)]
    return max(len(found), len(expected)) - int((once.reindex(expected.index) == expected).sum())


def copy_score(client: SyncPrefectClient, folder: Path, name: str) -> UUID:
    """Deploy `score` once more: a slot of its own, and a folder of its own for the answers."""
    score = client.read_deployment_by_name(SCORE)
    return client.create_deployment(
        score.flow_id,
        name,
        concurrency_limit=1,
        concurrency_options=score.concurrency_options,
        parameters={"answers": str(find_answers(folder, name))},
        work_pool_name=score.work_pool_name,
        tags=score.tags,
        path=score.path,
        entrypoint=score.entrypoint,
        parameter_openapi_schema=score.parameter_openapi_schema,
        pull_steps=score.pull_steps,
    )


def measure_spans(client: SyncPrefectClient, deployment: UUID) -> dict[StateType, float]:
    """How long a run that nobody disturbs is pending, and how long it runs."""
    run = client.create_flow_run_from_deployment(deployment).id
    times = []
    for state in (*MOMENTS, StateType.COMPLETED):
        await_state(client, run, state, StateType.COMPLETED)
        times.append(time.monotonic())
    return {MOMENTS[0]: times[1] - times[0], MOMENTS[1]: times[2] - times[1]}


def break_run(
    services: Services, client: SyncPrefectClient, one: Try, moment: tuple[StateType, float], pick: random.Random
) -> None:
    """Kill what is to be killed, up to so many seconds after a run is in a state; not once it is over."""
    state, span = moment
    while not one.state or one.state == "COMPLETED":
        one.run = client.create_flow_run_from_deployment(one.deployment).id
        await_state(client, one.run, state, StateType.COMPLETED)
        time.sleep(pick.uniform(0, span))
        found = client.read_flow_run(one.run).state
        one.state = found.type.value if found else ""
    one.killed = time.monotonic()
    BREAKS[one.fault](services, pick)


def await_slot(api: str, one: Try) -> None:
    """Wait until the slot is free, and note how long that took."""
    with SyncPrefectClient(api=api) as client, suppress(AssertionError):
        wait_until(lambda: count_slots(client, one.deployment) == 0, "a free slot", seconds=PATIENCE, every=5)
        one.is_free, one.seconds = True, time.monotonic() - one.killed


def await_next(client: SyncPrefectClient, one: Try) -> None:
    """Wait until the run that a schedule has started is over."""
    chosen = DeploymentFilter(id=DeploymentFilterId(any_=[one.deployment]))

    def list_next() -> list[State]:
        runs = client.read_flow_runs(deployment_filter=chosen)
        return [run.state for run in runs if run.auto_scheduled and run.state]

    try:
        wait_until(lambda: any(state.is_completed() for state in list_next()), "the next run", seconds=180, every=1)
        one.next_ran = True
    except AssertionError:
        ends = [f"{state.name} since {state.timestamp:%X} ({state.message})" for state in list_next()]
        print(f"{one.fault}, {one.state}: the next run is not done: {'; '.join(ends) or 'it was not scheduled'}")


def break_runs(services: Services, client: SyncPrefectClient, faults: Mapping[str, int], seed: int) -> list[Try]:
    """Try each fault so many times, each on a deployment of its own; wait for all slots, then for each next run."""
    write_wines(services)
    pick, chosen = random.Random(seed), [fault for fault, number in faults.items() for _ in range(number)]
    tries = [Try(fault, copy_score(client, services.folder, f"score {number}")) for number, fault in enumerate(chosen)]
    spans = measure_spans(client, copy_score(client, services.folder, UNDISTURBED))
    with ThreadPoolExecutor(len(tries)) as waiting:
        for number, one in enumerate(tries):
            state = MOMENTS[number % len(MOMENTS)]
            break_run(services, client, one, (state, spans[state]), pick)
            ended, has_slot = " ".join(end_lost_runs()), count_slots(client, one.deployment)
            assert not has_slot or client.read_flow_run(one.run).name not in ended, "a run that has its slot was ended"
            waiting.submit(await_slot, services.api, one)
            print(f"{one.fault}: a run was {one.state}", flush=True)
    for one in tries:  # one at a time: thirty new processes at once overload the machine
        schedule_soon(client, one.deployment)
        await_next(client, one)
    end_lost_runs()
    expected = read_answers(find_answers(services.folder, UNDISTURBED))
    for number, one in enumerate(tries):
        if one.next_ran:
            one.wrong = count_wrong(read_answers(find_answers(services.folder, f"score {number}")), expected)
        end = client.read_flow_run(one.run).state
        one.seen = f"{end.name}: {end.message or 'the run is done'}" if end else ""
        one.went_on = bool(end and end.is_completed())
        one.marked = find_bad_end(str(one.run)) == "crashed"
        if one.went_on == one.marked and end:
            print(f"{one.fault}, {one.state}: the run is {end.name} since {end.timestamp:%X} ({end.message})")
    return tries


def make_row(fault: str, state: str, tries: Sequence[Try]) -> dict[str, object]:
    """The tries of a fault in which the run had the same state, as a row of the table."""
    seconds = [one.seconds for one in tries]
    return {
        "trial": fault,
        "the run was": state,
        "tries": len(tries),
        "slots that stayed taken": sum(not one.is_free for one in tries),
        "seconds to a free slot": f"{min(seconds):.0f} to {max(seconds):.0f}",
        "runs that went on to their end": sum(one.went_on for one in tries),
        "ended as crashed": sum(one.marked for one in tries),
        "next scheduled run done": sum(one.next_ran for one in tries),
        "wrong answers then": sum(one.wrong for one in tries),
        "the operator sees": "; ".join(sorted({one.seen for one in tries})),
    }


def make_rows(tries: Sequence[Try]) -> list[dict[str, object]]:
    kinds = sorted({(one.fault, one.state) for one in tries})
    return [make_row(*kind, [one for one in tries if (one.fault, one.state) == kind]) for kind in kinds]
