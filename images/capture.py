"""Take the pictures of the running system anew.

    python -m images.capture [NAME ...]     (make images)

It starts everything on ports of its own with the wines that WINE_DATA names, in a temporary folder that goes when it
ends, drives real traffic, and photographs what there is to see. A picture that looks as it did stays as it is.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from rich.console import Console

from commands import DONE, FINDING, BadInputError, NotThereError, RefusedError, run_command
from images.api_pictures import API_PICTURES
from images.drawn_pictures import DRAWN_PICTURES
from images.mlflow_pictures import MLFLOW_PICTURES
from images.monitoring_pictures import MONITORING_PICTURES
from images.picture import Picture
from images.prefect_pictures import PREFECT_PICTURES
from settings import load_settings

if TYPE_CHECKING:
    from images.stage import Stage

FOLDER = Path(__file__).parent
# Monitoring before the API's own pictures, whose questions would be in its windows too.
PICTURES = (*DRAWN_PICTURES, *MONITORING_PICTURES, *API_PICTURES, *MLFLOW_PICTURES, *PREFECT_PICTURES)
STAGE = "wine-images"  # of the temporary folder; it stands in some pictures, so it is the same each time


def take_pictures(
    pictures: Sequence[Picture], stage: "Stage", target: Path, console: Console, always: bool = False
) -> list[str]:
    """Take pictures one after the other; return what went wrong, one sentence a picture."""
    from playwright.sync_api import Error

    from images.browser import open_browser
    from images.files import keep_or_replace

    problems = []
    with open_browser() as browser:
        for number, picture in enumerate(pictures, start=1):
            place = f"{number:2} of {len(pictures)}  {picture.name}.png"
            try:
                png = picture.take(stage, browser)
                done = keep_or_replace(target / f"{picture.name}.png", png, picture.tolerance, always)
            except (Error, RefusedError) as error:  # another picture may be fine
                problems.append(f"{picture.name}: {error}")
                done = "failed"
            console.print(f"{place}: {done}")
    return problems


@contextmanager
def make_folder() -> Iterator[Path]:
    """The stage's folder, which goes with all that was made in it when the block ends."""
    folder = Path(tempfile.gettempdir()) / STAGE
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise NotThereError(f"{folder} is there already: wait for the other capture, or remove it") from error
    try:
        yield folder
    finally:
        rmtree(folder)


def choose_pictures(names: Sequence[str]) -> list[Picture]:
    """The pictures with these names, or all. Raises BadInputError for a name that is none."""
    known = {picture.name: picture for picture in PICTURES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadInputError(f"{', '.join(unknown)}: no such picture; there are {', '.join(known)}")
    return [picture for picture in PICTURES if not names or picture.name in names]


def main() -> int:
    """Take the pictures, and say what became of them."""
    parser = argparse.ArgumentParser(
        prog="python -m images.capture",
        description="Start everything on ports of its own, drive real traffic, and photograph it: images/*.png. "
        "All of them take about 20 minutes on two cores. WINE_DATA says which wines.",
        epilog=f"Pictures: {', '.join(picture.name for picture in PICTURES)}.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the pictures to take (all)")
    parser.add_argument("--always", action="store_true", help="replace a picture even if it looks as it did")
    parser.add_argument("--into", type=Path, default=FOLDER, metavar="FOLDER", help="where the files go (images/)")
    arguments = parser.parse_args()
    pictures = choose_pictures(arguments.names)
    if not arguments.into.is_dir():
        raise NotThereError(f"--into {arguments.into}: there is no such folder")

    from images.stage import Stage

    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its servers end with it
    with make_folder() as folder, Stage(folder, load_settings(), console) as stage:
        problems = take_pictures(pictures, stage, arguments.into, console, arguments.always)
    for problem in problems:
        console.print(f"failed: {problem}")
    console.print("Next: look at every new or replaced picture, then git diff --stat images")
    return FINDING if problems else DONE


if __name__ == "__main__":
    run_command(main)
