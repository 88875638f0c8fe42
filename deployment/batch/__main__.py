"""Score files of wines with the serving model: CSV or Parquet in, Parquet out, part by part.

    python -m deployment.batch [FILE | FOLDER | s3://bucket/path ...]

scores these files, or those in WINE_BATCH_WINES, and writes to WINE_BATCH_ANSWERS:

    <file>.<version>.<digest>/answers/part-00000.parquet    row, request_id, prediction, a probability per grade, …
    <file>.<version>.<digest>/refused/part-00000.csv        number and reason of every refused row
    <file>.<version>.<digest>/manifest.json                 the parts of the file, and whether all are done

With --explain there is also a column effect_<feature> for each feature: what it adds to the expected quality, in
grades. The digest covers the file's content, the model's run and --explain. A file that this model has already scored
is skipped; a changed file, or a new champion, means a new digest and is scored. The same command resumes a killed run:
it skips parts whose predictions exist.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, TaskID

from commands import DONE, BadInputError, NotThereError, RefusedError, run_command
from executors import open_executor
from settings import load_settings

if TYPE_CHECKING:
    from deployment.batch.file import ScoredFile


def main() -> int:
    """Score files with a progress bar, and print where the predictions are."""
    settings = load_settings()
    arguments = _parse_arguments(settings.wine_type)

    from deployment.batch.file import ScoredFile, find_files, map_chunks, score_file
    from deployment.batch.job import Options
    from deployment.batch.storage import find_name, parse_location

    files = find_files([parse_location(text) for text in arguments.wines], settings.batch_wines)
    options = Options(arguments.type, arguments.explain)
    console = Console(highlight=False, soft_wrap=True)
    errors: list[Exception] = []
    scored: list[ScoredFile] = []
    with (
        open_executor(settings.batch_cores, settings.dask) as executor,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        for file in files:
            bar = progress.add_task(find_name(file), total=None)

            def show(done: int, of: int, bar: TaskID = bar) -> None:
                progress.update(bar, completed=done, total=of)

            map_fn = map_chunks(executor, show)
            try:
                scored.append(score_file(file, settings.serving_models, settings.batch_answers, map_fn, options))
                console.print(scored[-1].sentence())
            except (BadInputError, NotThereError) as error:
                if len(files) == 1:
                    raise
                errors.append(error)
                console.print(f"not scored: {error}")
            progress.remove_task(bar)
    return _conclude(console, scored, errors, settings.batch_wines)


def _parse_arguments(wine_type: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Score files of wines with the champion. A file that cannot be scored does not stop the others. "
        "Exit code: 1 if a file has no wines, 2 or 3 if a file cannot be read."
    )
    parser.add_argument(
        "wines",
        nargs="*",
        help="tables as text (.csv, .tsv, .txt, .gz) or Parquet, folders of them, s3://bucket/path; "
        "default: WINE_BATCH_WINES",
    )
    parser.add_argument(
        "--type",
        choices=("red", "white"),
        default=wine_type,
        help="the colour of all wines, for files without a column for it (WINE_TYPE)",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="add a column effect_<feature> for each feature: how much it adds to the expected quality. This is 13 "
        "times the work; the answers go to a folder of their own",
    )
    return parser.parse_args()


def _conclude(console: Console, scored: Sequence["ScoredFile"], errors: Sequence[Exception], folder: object) -> int:
    """Print what to do next; return the exit code."""
    if errors:
        raise type(errors[0])(f"{len(errors)} of {len(errors) + len(scored)} files could not be scored, see above")
    if not scored:
        console.print(f"Nothing to score: put CSV or Parquet files into {folder}")
        return DONE
    if hollow := [one.manifest.wines for one in scored if not one.manifest.scored]:
        raise RefusedError(f"no row of {', '.join(hollow)} is a valid wine; the reasons are in {scored[-1].refused}")
    console.print("Next: read the answers, for example with pandas.read_parquet(FOLDER)")
    return DONE


if __name__ == "__main__":
    run_command(main)
