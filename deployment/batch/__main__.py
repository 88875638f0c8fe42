"""Score files of wines with the model that serves: CSV or Parquet in, Parquet out, part by part.

    python -m deployment.batch [FILE | FOLDER | s3://bucket/path ...]

scores those, or what lies in WINE_BATCH_WINES, into WINE_BATCH_ANSWERS:

    <file>.<version>.<digest>/answers/part-00000.parquet    row, request_id, prediction, a probability a grade, …
    <file>.<version>.<digest>/refused/part-00000.csv        row and reason of every row that is no wine
    <file>.<version>.<digest>/manifest.json                 the parts of the file, and whether all are done

The digest is of the file's content and the model's run, so a file that is scored by this model already is left
alone, and one that changed, or that another champion is to score, is not. A run that was killed is taken up again
by the same command: parts whose answers are there are not scored again.
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from commands import DONE, run_command
from executors import open_executor
from settings import load_settings


def main() -> int:
    """Score files under a progress bar, and say where the answers are."""
    settings = load_settings()
    parser = argparse.ArgumentParser(description="Score files of wines with the model that serves.")
    parser.add_argument(
        "wines",
        nargs="*",
        help="CSV and Parquet files, folders of them, s3://bucket/path; WINE_BATCH_WINES where left out",
    )
    given = parser.parse_args().wines

    from deployment.batch.file import list_files, score_file
    from deployment.batch.storage import find_name, parse_location

    locations = [parse_location(text) for text in given] or [settings.batch_wines]
    files = [file for location in locations for file in list_files(location)]
    console = Console(highlight=False, soft_wrap=True)
    with (
        open_executor(settings.batch_cores, settings.dask) as executor,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        for file in files:
            bar = progress.add_task(find_name(file), total=None)

            def show(done: int, of: int, bar: TaskID = bar) -> None:
                progress.update(bar, completed=done, total=of)

            scored = score_file(file, settings.serving_models, settings.batch_answers, executor, show)
            progress.remove_task(bar)
            console.print(scored.sentence())
    if not files:
        if isinstance(settings.batch_wines, Path):
            settings.batch_wines.mkdir(parents=True, exist_ok=True)
        console.print(f"Nothing to score: put CSV or Parquet files into {settings.batch_wines}")
    else:
        console.print("Next: read the answers, say with pandas.read_parquet(FOLDER)")
    return DONE


if __name__ == "__main__":
    run_command(main)
