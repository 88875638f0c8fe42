"""Score files of wines with the champion, as a Prefect flow: the deployment `score` in prefect.yaml."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from commands import BadInputError
from deployment.batch.file import ScoredFile, find_files, map_chunks, score_file
from deployment.batch.job import Options
from deployment.batch.storage import Location, parse_location
from executors import open_executor
from orchestration.tasks.notification import notify_webhook
from orchestration.tasks.wiring import wire
from settings import load_settings
from wine_data.schema import NAME, ROWS

# A file has no timeout: its time depends on the number of wines. The flow has one, because a run that hangs would keep
# its deployment's only slot forever. The next run resumes an interrupted file where it stopped.
score_task = wire(score_file, "score file", retries=1, run_name="score {wines}", timeout=None)


@flow(name=f"{NAME}-batch", timeout_seconds=24 * 3600, on_failure=[notify_webhook], on_crashed=[notify_webhook])
def batch_flow(wines: Location | None = None, answers: Location | None = None) -> list[ScoredFile]:
    """Score a file of wines, or every file of a folder, with the serving model.

    Args:
        wines: a CSV or Parquet file, or a folder of them, local or s3://bucket/path. Empty: WINE_BATCH_WINES.
        answers: the folder for the predictions, local or s3://bucket/path. Empty: WINE_BATCH_ANSWERS.

    Raises:
        BadInputError: a file could not be scored. The others were.
    """
    settings, logger = load_settings(), get_run_logger()
    answers = parse_location(str(answers)) if answers else settings.batch_answers  # Prefect passes a path as text
    files = find_files([parse_location(str(wines))] if wines else [], settings.batch_wines)
    if not files:
        logger.info("nothing to score: %s holds no CSV or Parquet file", settings.batch_wines)
        return []
    with open_executor(settings.batch_cores, settings.dask) as executor:
        wishes = (settings.serving_models, answers, map_chunks(executor), Options(settings.wine_type))
        states = [score_task(file, *wishes, return_state=True) for file in files]
    results = [state.result(raise_on_failure=False) for state in states]
    scored = [result for result in results if isinstance(result, ScoredFile)]
    for result in scored:
        logger.info(result.sentence())
    if scored:
        create_markdown_artifact(render_files(scored), key="scored-files", description="Files scored in this run")
    problems = [result for result in results if isinstance(result, BaseException)]
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise BadInputError("; ".join(map(str, problems)))
    return scored


def render_files(files: list[ScoredFile]) -> str:
    """The result for each file, as a Markdown table."""
    rows: list[tuple[Any, ...]] = [
        ("file", "version", f"{ROWS} scored", "rows refused", "answers", "new"),
        ("---",) * 6,
    ]
    for one in files:
        done = one.manifest
        rows.append((done.wines, done.version, done.scored, done.refused, one.answers, one.new))
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
