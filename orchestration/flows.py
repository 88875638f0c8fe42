"""The pipeline: functions of all packages as Prefect tasks, in one flow of subflows; and the clean-up flow.

    python -m orchestration.flows

runs it once, in this process, with a temporary Prefect server, or with the one that PREFECT_API_URL names. Each subflow
can run alone, with the fingerprint of a stored snapshot of wines or the id of a tracked run.
"""

import argparse
import os

from orchestration.tasks.progress import PREFECT_CONSOLE, Progress
from wine_quality_training.models import ALL_MODELS

progress = Progress()


def parse_pipeline() -> argparse.Namespace:
    """Parse the arguments of orchestration.flows."""
    parser = argparse.ArgumentParser(
        description="Run the pipeline once: data to a registered model, a serving bundle and one prediction. "
        "WINE_DATA names the source of the data."
    )
    parser.add_argument(
        "--models", nargs="+", default=ALL_MODELS, choices=ALL_MODELS, help="the models to compare (all)"
    )
    parser.add_argument(
        "--search", type=int, default=0, metavar="TRIALS", help="also tune a classifier, with this number of trials"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="print Prefect's own lines too")
    return parser.parse_args()


# Handle --help and wrong arguments here, before the slow imports below; main() reads the arguments.
if __name__ == "__main__":
    if not parse_pipeline().verbose:
        os.environ.setdefault(PREFECT_CONSOLE, "ERROR")
    progress.start("loading MLflow, Prefect and scikit-learn")

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.runtime import flow_run
from rich.console import Console

from commands import DONE, BadInputError, run_command
from experiment_tracking.pages import find_address
from experiment_tracking.registry.promotion import promote, record_refusal, settle_moves
from experiment_tracking.registry.versions import export_version, find_champion, register_model
from experiment_tracking.runs.store import open_store
from experiment_tracking.runs.tracking import TrackedModel, end_run, finish_parent, is_tracked, start_parent
from experiment_tracking.tidy.tidying import tidy_stores
from orchestration.summary.result import PipelineResult, Release, show_result
from orchestration.tasks.artifacts import create_picture_artifact, start_progress
from orchestration.tasks.notification import notify_webhook
from orchestration.tasks.parameters import Folds, Models, Reason, SearchTrials, Seed, Since, Source, Trials
from orchestration.tasks.probe import ask_api
from orchestration.tasks.steps import (
    add_labelled,
    audit_snapshot,
    fetch_wines,
    find_labelled,
    gather_labelled,
    judge_on_holdout,
    pick_holdout_wine,
    replay_challenger,
    search_and_track,
    train_and_track,
)
from orchestration.tasks.wiring import prefect_server, use_kept, wire
from settings import Settings, load_settings
from wine_data.schema import NAME, ROWS, TITLE
from wine_data.snapshots.snapshot import read_snapshot
from wine_data.split import split_wines
from wine_quality_training.evaluate import choose_classifier
from wine_quality_training.report.figures import plot_protocols
from wine_quality_training.report.tables import list_scores, render_scores

fetch_task = wire(fetch_wines, "fetch wines")
audit_task = wire(audit_snapshot, "audit wines")
gather_task = wire(gather_labelled, "gather labelled answers")
find_labelled_task = wire(find_labelled, "find the champion's labelled answers")
add_task = wire(add_labelled, "add labelled answers")
open_task = wire(open_store, "open tracking store")
start_task = wire(start_parent, "start parent run")
on_wines = ("fingerprint", "folds", "seed")
train_task = wire(train_and_track, "train and track", "train {name}", timeout=1800, cached_by=("name", *on_wines))
search_task = wire(
    search_and_track, "search", "search in {trials} trials", timeout=4 * 3600, cached_by=("trials", *on_wines)
)
finish_task = wire(finish_parent, "finish parent run")
register_task = wire(register_model, "register model")
settle_task = wire(settle_moves, "settle moves")
replay_task = wire(replay_challenger, "replay the log")
judge_task = wire(judge_on_holdout, "judge version")
export_task = wire(export_version, "export version")
ask_task = wire(ask_api, "ask the API")
promote_task = wire(promote, "promote version")
refuse_task = wire(record_refusal, "record refusal")
tidy_task = wire(tidy_stores, "tidy", timeout=4 * 3600)


def name_run() -> str:
    """Name a run of the pipeline after the source of its wines."""
    return f"{TITLE.lower()} from {shorten_source(flow_run.parameters.get('source', ''))}"


def name_wines() -> str:
    """Name a run that loads wines after their source."""
    return f"{ROWS} from {shorten_source(flow_run.parameters.get('source', ''))}"


def shorten_source(source: str) -> str:
    """Shorten a source to the last part of its path or address; empty means WINE_DATA."""
    source = source or load_settings().data
    return source.rstrip("/").rpartition("/")[2] or source


@flow(name=f"{NAME}-data", flow_run_name=name_wines)
def prepare_flow(source: Source = "", seed: Seed = None) -> str:
    """Load the wines of a source, store a snapshot, audit it, and return its fingerprint."""
    settings, logger = load_settings(), get_run_logger()
    fingerprint: str = fetch_task(source or settings.data, choose_plan(None, seed)[1], **name_places(settings))
    logger.info(read_snapshot(settings.snapshots, fingerprint).introduce())
    findings = audit_task(fingerprint, settings.snapshots)
    for finding in findings:
        logger.info(finding)
    create_markdown_artifact(
        "\n".join(f"- {finding}" for finding in findings), key="audit", description=f"What is wrong with the {ROWS}"
    )
    return fingerprint


def choose_plan(folds: Folds, seed: Seed) -> tuple[int, int]:
    """Folds and seed as given, else from WINE_FOLDS and WINE_SEED on the machine that runs this."""
    settings = load_settings()
    return settings.folds if folds is None else folds, settings.seed if seed is None else seed


def name_places(settings: Settings) -> dict[str, Any]:
    """The settings that fetch_wines needs besides source and seed."""
    names = ("downloads", "uci_url", "snapshots", "s3_block", "wine_type")
    return {name: getattr(settings, name) for name in names}


@flow(name=f"{NAME}-labelled", flow_run_name="labelled answers for {fingerprint:.8}")
def learn_flow(fingerprint: str, reason: Reason = "", since: Since = 0.0) -> str:
    """Add labelled predictions to wines, and return the fingerprint of the training data.

    With a reason, they come from the log; without, they are those that the champion learned from, if any.
    """
    settings, logger = load_settings(), get_run_logger()
    open_task(settings.mlflow_uri, settings.mlflow_artifacts)
    if reason:
        logger.info("Retraining, not scheduled: %s", reason)
        labelled = gather_task(settings.log_url, since, settings.snapshots)
    else:
        labelled = find_labelled_task(settings.snapshots)
    if not labelled:
        return fingerprint
    joined = add_task(fingerprint, labelled, settings.snapshots)
    logger.info(read_snapshot(settings.snapshots, joined).introduce())
    return joined


@flow(name=f"{NAME}-comparison", flow_run_name="compare models on {fingerprint:.8}")
def compare_flow(
    fingerprint: str, folds: Folds = None, seed: Seed = None, models: Models = ALL_MODELS
) -> list[TrackedModel]:
    """Fit, score and track models on the wines with this fingerprint; unchanged models come from the cache."""
    settings, logger = load_settings(), get_run_logger()
    folds, seed = choose_plan(folds, seed)
    experiment_id = open_task(settings.mlflow_uri, settings.mlflow_artifacts)
    plan, data = {"folds": folds, "seed": seed}, read_snapshot(settings.snapshots, fingerprint)
    parent_id = start_task(experiment_id, data, plan)
    pages = find_address(settings.mlflow_uri, settings.mlflow_port)
    run_page = f"{pages}/#/experiments/{experiment_id}/runs/{parent_id}"
    create_link_artifact(run_page, "the run in MLflow", key="mlflow-run", description="The run in MLflow")
    move_progress, done = start_progress("fits", "Fits that are done"), itertools.count(1)

    def log_fit(step: str) -> None:
        logger.info(step)
        move_progress(next(done) / (len(models) * (folds + 1)))

    same: dict[str, Any] = {
        "fingerprint": fingerprint,
        "snapshots": settings.snapshots,
        **plan,
        "experiment_id": experiment_id,
        "parent_id": parent_id,
    }
    tracked: list[TrackedModel] = []
    logger.info("Fitting and scoring %d models, each as published and in %d folds", len(models), folds)
    try:
        for number, model in enumerate(_train_each(settings.dask, models, same, log_fit), start=1):
            logger.info("Model %d of %d is done: %s", number, len(models), model.name)
            move_progress(number / len(models))
            tracked.append(model)
        scores = list_scores(tracked)
        finish_task(parent_id, render_scores(scores), {model.name: model.run_id for model in tracked})
    except BaseException as problem:  # also Ctrl-C: an abandoned run must not stay RUNNING
        end_run(parent_id, problem)
        raise
    create_markdown_artifact(render_scores(scores), key="two-protocols", description="Scores under both protocols")
    create_picture_artifact(plot_protocols(scores), key="protocols", description="As published, and leak-free")
    return tracked


def _train_each(
    dask: str, models: Sequence[str], same: dict[str, Any], on_step: Callable[[str], None]
) -> Iterator[TrackedModel]:
    """Train models one after the other, or all at once on a cluster, one task each; yield them in the given order."""
    if not dask:
        for name in models:
            parameters = {"name": name, **same, "on_step": on_step}
            yield use_kept(train_task(**parameters), is_tracked, train_task, **parameters)
        return

    from orchestration.tasks.cluster import log_step, open_task_runner

    with open_task_runner(dask) as runner:
        plans = [{"name": name, **same, "on_step": log_step} for name in models]
        futures = [runner.submit(train_task, plan) for plan in plans]
        for future, plan in zip(futures, plans, strict=True):
            yield use_kept(future.result(), is_tracked, train_task, **plan)


@flow(name=f"{NAME}-search", flow_run_name="search on {fingerprint:.8}")
def search_flow(fingerprint: str, trials: Trials, folds: Folds = None, seed: Seed = None) -> list[TrackedModel]:
    """Tune classifiers on the wines with this fingerprint, one run per trial, and track the best one."""
    settings = load_settings()
    folds, seed = choose_plan(folds, seed)
    experiment_id = open_task(settings.mlflow_uri, settings.mlflow_artifacts)
    plan = (trials, fingerprint, settings.snapshots, folds, seed, experiment_id, settings.dask)
    tracked = use_kept(search_task(*plan), lambda models: all(map(is_tracked, models)), search_task, *plan)
    create_markdown_artifact(
        render_scores(list_scores(tracked)), key="search", description="Scores of the winner of the search, leak-free"
    )
    return tracked


@flow(name=f"{NAME}-release", flow_run_name="release run {run_id:.8}")
def release_flow(run_id: str, fingerprint: str, reason: Reason = "") -> Release:
    """Register the model of a run, let the gate judge it, and promote it if the API can serve it."""
    settings, logger = load_settings(), get_run_logger()
    open_task(settings.mlflow_uri, settings.mlflow_artifacts)
    models = settings.serving_models
    serving = settle_task(models)
    challenger, champion = register_task(run_id), find_champion()
    verdict = None
    if champion is None or champion.number != challenger.number:
        replay_task(challenger, settings)
        verdict = judge_task(challenger, fingerprint, settings.snapshots)
        for sentence in verdict.sentences():
            logger.info(sentence)
    wine, grade = pick_holdout_wine(fingerprint, settings.snapshots)
    if serving is None or (verdict and verdict.admitted):
        serving = export_task(challenger, models)
    answer = ask_task(serving, wine)  # before promotion: a model that the API cannot serve is not promoted
    if verdict and verdict.admitted:
        promote_task(challenger, verdict, models, reason)
    elif verdict:
        refuse_task(challenger, verdict)
    return Release(verdict, find_champion(), grade, answer)


# A flow that hangs between its tasks would keep its deployment's only slot forever. The timeout is longer than those of
# all tasks together. A run that reaches it has failed, and is not retried: it would need the same time again.
@flow(
    name=f"{NAME}-pipeline",
    flow_run_name=name_run,
    timeout_seconds=12 * 3600,
    on_failure=[notify_webhook],
    on_crashed=[notify_webhook],
)
def main_flow(  # noqa: PLR0913 (Prefect shows them in its form)
    source: Source = "",
    folds: Folds = None,
    seed: Seed = None,
    models: Models = ALL_MODELS,
    search_trials: SearchTrials = 0,
    reason: Reason = "",
    labelled_since: Since = 0.0,
) -> PipelineResult:
    """Run the whole pipeline: load and audit wines, train and track models, register, judge and export the best."""
    fingerprint = learn_flow(prepare_flow(source, seed), reason, labelled_since)
    tracked = compare_flow(fingerprint, folds, seed, models)
    if search_trials:
        tracked += search_flow(fingerprint, search_trials, folds, seed)
    release = release_flow(choose_classifier(tracked).run_id, fingerprint, reason)
    data = read_snapshot(load_settings().snapshots, fingerprint)
    return PipelineResult(data.source, fingerprint, data.note, list_scores(tracked), release)


@flow(name=f"{NAME}-tidy", timeout_seconds=5 * 3600, on_failure=[notify_webhook], on_crashed=[notify_webhook])
def tidy_flow() -> None:
    """Remove old data that is no longer needed from all stores, as `make tidy` does."""
    logger = get_run_logger()
    for sentence in tidy_task(load_settings()):
        logger.info(sentence)


def main() -> int:
    """Run the pipeline once and print the result."""
    arguments = parse_pipeline()
    if arguments.search < 0:
        raise BadInputError("--search takes a number of trials, 0 or more")
    settings = load_settings()
    # Report a wrong source, or too few wines to split, before anything starts.
    progress.print_step(f"reading the {ROWS}")
    fingerprint = fetch_wines(settings.data, settings.seed, **name_places(settings))
    data = read_snapshot(settings.snapshots, fingerprint)
    split_wines(data.train, data.validation, settings.folds, settings.seed)
    progress.print_step("starting Prefect")
    with prefect_server():
        if not arguments.verbose:
            logging.getLogger("prefect.flow_runs").addHandler(progress)
        result = main_flow(settings.data, settings.folds, settings.seed, tuple(arguments.models), arguments.search)
        progress.print_step("ending Prefect")
    progress.stop()
    show_result(result, Console(highlight=False, soft_wrap=True))
    return DONE


if __name__ == "__main__":
    run_command(main)
