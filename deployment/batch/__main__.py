"""Score files of wines with the model that serves: CSV or Parquet in, Parquet out, part by part.

    python -m deployment.batch [FILE | FOLDER | s3://bucket/path ...]

scores those, or what lies in WINE_BATCH_WINES, into WINE_BATCH_ANSWERS:

    <file>.<version>.<digest>/answers/part-00000.parquet    row, request_id, prediction, a probability a grade, …
    <file>.<version>.<digest>/refused/part-00000.csv        row and reason of every row that is no wine
    <file>.<version>.<digest>/manifest.json                 the parts of the file, and whether all are done

With --explain there is a column effect_<feature> for each feature too: what it adds to the expected quality, in grades.
The digest is of the file's content, the model's run and --explain, so a file that is scored by this model already is
left alone, and one that changed, or that another champion is to score, is not. A run that was killed is taken up again
by the same command: parts whose answers are there are not scored again.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, TaskID

from commands import DONE, BadInputError, NotThereError, RefusedError, run_command
from executors import open_executor
from settings import load_settings
from wine_data.schema import CATEGORY, FEATURES, KINDS, ROW, ROWS

if TYPE_CHECKING:
    from deployment.batch.file import ScoredFile


def main() -> int:
    """Score files under a progress bar, and say where the answers are."""
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
        description=f"Score files of {ROWS} with the model that serves. Ends with 1 if a file held no {ROW}, with 2 or "
        "3 if one could not be read; the others are scored."
    )
    parser.add_argument(
        "wines",
        nargs="*",
        help="tables as text (.csv, .tsv, .txt, .gz) or Parquet, folders of them, s3://bucket/path; "
        "WINE_BATCH_WINES where left out",
    )
    parser.add_argument(
        "--type",
        choices=KINDS,
        default=wine_type,
        help=f"the {CATEGORY or 'kind'} of {ROWS} in files that give none (WINE_TYPE)",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="with a column effect_<feature> for each feature, what it adds to the expected quality; this is "
        f"{len(FEATURES) + 1} times "
        "the work, and the answers have a folder of their own",
    )
    return parser.parse_args()


def _conclude(console: Console, scored: Sequence["ScoredFile"], errors: Sequence[Exception], folder: object) -> int:
    """Say what to do next; return the exit code."""
    if errors:
        raise type(errors[0])(f"{len(errors)} of {len(errors) + len(scored)} files could not be scored, see above")
    if not scored:
        console.print(f"Nothing to score: put CSV or Parquet files into {folder}")
        return DONE
    if hollow := [one.manifest.wines for one in scored if not one.manifest.scored]:
        raise RefusedError(f"no row of {', '.join(hollow)} is a {ROW}; the reasons are in {scored[-1].refused}")
    console.print("Next: read the answers, say with pandas.read_parquet(FOLDER)")
    return DONE


if __name__ == "__main__":
    run_command(main)
