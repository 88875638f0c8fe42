"""The pipeline: the functions of every room as Prefect tasks, in one flow.

    python -m orchestration.flows

runs it here and now, with a Prefect server that lives only as long (or with yours, where
PREFECT_API_URL names one).
"""

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from prefect import Task, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from rich.console import Console

from commands import DONE, BadInputError, RefusedError, run_command
from experiment_tracking.gate import Verdict
from experiment_tracking.promotion import promote, record_refusal, settle_moves
from experiment_tracking.registry import judge_version
from experiment_tracking.store import open_store
from experiment_tracking.tracking import TrackedModel, end_run, finish_parent, start_parent, track_model
from experiment_tracking.versions import MODEL, Version, export_version, find_champion, register_model
from orchestration.probe import ask_api, pick_wine
from settings import load_settings
from wine_data.audit import audit_wines
from wine_data.sources import WineData, load_wines
from wine_data.split import Sides, split_wines
from wine_quality_training.evaluate import Evaluation, Score, choose_classifier
from wine_quality_training.models import MODELS
from wine_quality_training.report import list_scores, render_scores, tabulate_scores
from wine_quality_training.train import train_model

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class PipelineResult:
    """What a run of the pipeline came to."""

    source: str
    fingerprint: str
    note: str
    findings: list[str]
    scores: list[Score]
    verdict: Verdict
    champion: Version | None
    true_grade: int  # of the wine that was asked for
    answer: dict[str, Any]


def is_worth_retrying(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Say whether a failure may pass: a mistake in the wines or settings stays one."""
    return not isinstance(state.result(raise_on_failure=False), (BadInputError, RefusedError))


def wire(function: Callable[P, T], name: str, retries: int = 0, run_name: str | None = None) -> Task[P, T]:
    """Make a task of a function. Tables and models travel between these, too large to hash for a cache key."""
    make_task = task(
        name=name, task_run_name=run_name or name, retries=retries, retry_delay_seconds=2,
        retry_condition_fn=is_worth_retrying, cache_policy=NO_CACHE,
    )  # fmt: skip
    return make_task(function)


# Retries go where something outside can fail for a while: a disk, a locked store, a port. A fit
# that failed once fails again.
load_task = wire(load_wines, "load wines", retries=2, run_name="load wines from {source}")
audit_task = wire(audit_wines, "audit wines")
split_task = wire(split_wines, "split wines")
train_task = wire(train_model, "train model", run_name="train {name}")
open_task = wire(open_store, "open tracking store", retries=3)
start_task = wire(start_parent, "start parent run", retries=3)
track_task = wire(track_model, "track model", retries=3)
finish_task = wire(finish_parent, "finish parent run", retries=3)
register_task = wire(register_model, "register model", retries=3)
judge_task = wire(judge_version, "judge version")
settle_task = wire(settle_moves, "settle moves", retries=1)
export_task = wire(export_version, "export version", retries=1)
ask_task = wire(ask_api, "ask the API", retries=1)
promote_task = wire(promote, "promote version", retries=3)
refuse_task = wire(record_refusal, "record refusal", retries=3)


@flow(name="wine-quality-pipeline", flow_run_name="wine quality from {source}")
def main_flow(source: str, folds: int = 5, seed: int = 42) -> PipelineResult:
    """Take wine data through audit, training, tracking and registration to a bundle that answers."""
    settings, logger = load_settings(), get_run_logger()
    experiment_id = open_task(settings.mlflow_uri, settings.mlflow_artifacts)
    data = load_task(source, seed, settings.downloads, settings.uci_url)
    logger.info(data.introduce())
    findings = audit_task(data).sentences()
    for finding in findings:
        logger.info(finding)
    sides = split_task(data.train, data.validation, folds, seed)
    parent_id = start_task(experiment_id, data, {"folds": folds, "seed": seed})
    try:
        evaluations, tracked = _train_and_track(experiment_id, parent_id, data, sides, seed)
        scores = list_scores(evaluations)
        finish_task(parent_id, render_scores(scores))
    except BaseException as problem:  # ctrl-c too: a run that nobody works on must not look as if somebody did
        end_run(parent_id, problem)
        raise
    create_markdown_artifact(render_scores(scores), key="two-protocols", description="Scores under both protocols")

    best = choose_classifier(evaluations)
    challenger = register_task(tracked[best.name].run_id)
    serving = settle_task(settings.serving_models)
    verdict = judge_task(challenger, sides.holdout)
    for sentence in verdict.sentences():
        logger.info(sentence)
    wine, grade = pick_wine(sides.holdout)
    if verdict.admitted or serving is None:
        serving = export_task(challenger, settings.serving_models)
    answer = ask_task(serving, wine)  # before anybody else can: what does not answer is not promoted
    if verdict.admitted:
        promote_task(challenger, verdict, settings.serving_models)
    else:
        refuse_task(challenger, verdict)
    return PipelineResult(
        data.source, data.fingerprint, data.note, findings, scores, verdict, find_champion(), grade, answer
    )


def _train_and_track(
    experiment_id: str, parent_id: str, data: WineData, sides: Sides, seed: int
) -> tuple[list[Evaluation], dict[str, TrackedModel]]:
    logger = get_run_logger()
    evaluations: list[Evaluation] = []
    tracked: dict[str, TrackedModel] = {}
    for number, name in enumerate(MODELS, start=1):
        logger.info("Model %d of %d: %s", number, len(MODELS), name)
        of_model = train_task(name, data, sides, seed, on_step=logger.info)
        tracked[name] = track_task(experiment_id, parent_id, data, sides, of_model)
        evaluations += of_model
    return evaluations, tracked


@contextmanager
def prefect_server() -> Iterator[None]:
    """Start Prefect's temporary server, where no other is set, out of the reach of ctrl-c.

    A terminal sends ctrl-c to every process of the command. The server would end at once, and the
    flow would try for minutes to tell it that it was stopped. A blocked signal stays blocked in a child.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def show_result(result: PipelineResult, console: Console) -> None:
    """Print what a run came to, and what to do next."""
    console.print(*tabulate_scores(result.scores), sep="\n")
    note = f"\n            {result.note}" if result.note else ""
    probabilities = ", ".join(f"{grade}: {p:.2f}" for grade, p in result.answer["probabilities"].items())
    gate = "\n            ".join(result.verdict.sentences())
    champion = f"{MODEL} version {result.champion.number}, {result.champion.model}" if result.champion else "none yet"
    console.print(
        f"""
Wines       {result.source}, fingerprint {result.fingerprint[:12]}{note}
Gate        {gate}
Champion    {champion}
Prediction  grade {result.answer["prediction"]} through the API, for a holdout wine graded {result.true_grade}
            ({probabilities})

Next
  make serve                        the API; try it at /docs
  make mlflow                       runs, metrics and the registry in a browser
  make search                       tune XGBoost and forests on the same wines
  WINE_DATA=FOLDER make pipeline    the same on your own files"""
    )


def main() -> int:
    """Run the pipeline once and show what it came to."""
    argparse.ArgumentParser(
        description="Run the pipeline once: wine data to a registered model, a serving bundle and one prediction. "
        "WINE_DATA says where the wines come from."
    ).parse_args()
    settings = load_settings()
    load_wines(settings.data, settings.seed, settings.downloads, settings.uci_url)  # a mistake there is told at once
    with prefect_server():
        result = main_flow(settings.data, settings.folds, settings.seed)
    show_result(result, Console(highlight=False, soft_wrap=True))
    return DONE


if __name__ == "__main__":
    run_command(main)
