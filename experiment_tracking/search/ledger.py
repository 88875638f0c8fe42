"""What a search leaves in MLflow, and how a killed one is found again there.

A search is a parent run, a trial a nested run. A trial's run is FINISHED with its result, FAILED with
the reason, or, where the search ended while it ran, KILLED. The result is also in one tag, whole,
so that --resume reads back exactly what the optimiser got; there is no other state.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import mlflow
from mlflow.entities import Run, ViewType

from commands import BadInputError
from experiment_tracking.runs.tracking import end_run, log_values, nest_under, start_run
from experiment_tracking.search.space import Study, Values
from experiment_tracking.search.trial import FAILED, TrialResult
from wine_data.sources.load import WineData

KIND, SEARCH, TRIAL = "search.kind", "search", "trial"
IDENTITY, NUMBER, VALUES, RESULT = "search.identity", "search.trial", "search.values", "search.result"
OUTCOME, PROBLEM = "search.outcome", "problem"


@dataclass(frozen=True)
class Record:
    """A trial as the store has it: its number, its run, its values, and its result if it has one."""

    number: int
    run_id: str
    values: Values
    result: TrialResult | None


@dataclass(frozen=True)
class Ledger:
    """Where the trials of one search are written down; `finished` has those of a search that is resumed, by number."""

    experiment_id: str
    parent_id: str
    data: WineData
    finished: Mapping[int, Record] = field(default_factory=dict)


def open_ledger(experiment_id: str, data: WineData, identity: Mapping[str, Any], knobs: Mapping[str, Any]) -> Ledger:
    """Start the parent run of a new search; `identity` is what --resume goes by."""
    tags = {KIND: SEARCH, IDENTITY: _print_json(identity)}
    return Ledger(experiment_id, start_run(experiment_id, "search", data, {**identity, **knobs}, tags), data)


def reopen_ledger(experiment_id: str, data: WineData, identity: Mapping[str, Any]) -> Ledger:
    """Find the last search of this identity that did not end well, with the trials that it finished.

    A trial that was running when the search was killed is marked and will run again.

    Raises:
        BadInputError: there is no such search.
    """
    wanted = {KIND: SEARCH, IDENTITY: _print_json(identity)}
    parents = [run for run in _find_runs(experiment_id, wanted) if run.info.status != "FINISHED"]
    if not parents:
        known = ", ".join(f"{name} {value}" for name, value in identity.items())
        raise BadInputError(f"there is no unfinished search to resume ({known}). Start one without --resume")
    client, parent_id = mlflow.MlflowClient(), parents[0].info.run_id
    client.update_run(parent_id, status="RUNNING")
    if PROBLEM in parents[0].data.tags:
        client.delete_tag(parent_id, PROBLEM)
    ledger = Ledger(experiment_id, parent_id, data)
    records = {}
    for run in _find_runs(experiment_id, {KIND: TRIAL, "mlflow.parentRunId": parent_id}):
        record = _read_record(run)
        if record.result is not None and run.info.status in ("FINISHED", "FAILED"):
            records[record.number] = record
        elif run.info.status == "RUNNING":
            kill_run(run.info.run_id, f"the search was killed while trial {record.number} ran; it ran again")
    return replace(ledger, finished=records)


def start_trial(ledger: Ledger, number: int, study: Study, values: Values) -> str:
    """Start the nested run of a trial and return its id."""
    return start_run(
        ledger.experiment_id,
        f"{study.name} {number}",
        ledger.data,
        {"task": study.task, "family": study.family, **values},
        {KIND: TRIAL, NUMBER: str(number), VALUES: _print_json(values), **nest_under(ledger.parent_id)},
    )


def finish_trial(run_id: str, result: TrialResult) -> None:
    """Put a result on a trial's run and end it: FAILED, with the reason, where the trial failed."""
    metrics = {} if result.loss is None else {"loss": result.loss}
    metrics |= {f"trial.{measure}": value for measure, value in result.metrics.items()}
    series = {"fold_loss": result.fold_losses, "rounds": result.rounds}
    tags = {OUTCOME: result.outcome, RESULT: json.dumps(asdict(result))}
    log_values(run_id, metrics=metrics, series={name: values for name, values in series.items() if values}, tags=tags)
    end_run(run_id, result.problem if result.outcome == FAILED else "")


def kill_open_trials(ledger: Ledger) -> None:
    """End the runs of trials that are still open, because their search is stopped.

    They are looked up in the store: a search that is stopped while it starts a run does not know its id yet.
    """
    for run in _find_runs(ledger.experiment_id, {KIND: TRIAL, "mlflow.parentRunId": ledger.parent_id}):
        if run.info.status == "RUNNING":
            kill_run(run.info.run_id, f"the search was stopped while trial {run.data.tags[NUMBER]} ran")


def kill_run(run_id: str, reason: str) -> None:
    """End a run that is no longer worked on."""
    client = mlflow.MlflowClient()
    client.set_tag(run_id, PROBLEM, reason)
    client.set_terminated(run_id, "KILLED")


def _find_runs(experiment_id: str, tags: Mapping[str, str]) -> list[Run]:
    """The runs that carry these tags, the latest first."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    client, token = mlflow.MlflowClient(), None
    runs: list[Run] = []
    while True:
        page = client.search_runs([experiment_id], wanted, ViewType.ACTIVE_ONLY, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def _read_record(run: Run) -> Record:
    tags = run.data.tags
    result = None
    if RESULT in tags:
        plain = json.loads(tags[RESULT])
        result = TrialResult(**plain | {name: tuple(plain[name]) for name in ("fold_losses", "rounds")})
    return Record(int(tags[NUMBER]), run.info.run_id, json.loads(tags[VALUES]), result)


def _print_json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), sort_keys=True)
