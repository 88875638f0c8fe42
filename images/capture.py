"""Take the pictures of the running system again.

    python -m images.capture [NAME ...]     (make images)

It starts all servers on their own ports, with the wines of WINE_DATA, in a temporary folder that is deleted at the end.
It sends real traffic, and takes screenshots of the pages.
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

from atomic_files import write_atomically
from commands import DONE, FINDING, BadInputError, NotThereError, RefusedError, run_command
from images.browser import encode_picture, open_browser, open_page
from images.pages import PICTURES, Picture

if TYPE_CHECKING:
    from images.stage import Stage

FOLDER = Path(__file__).parent


def take_pictures(pictures: Sequence[Picture], stage: "Stage", target: Path) -> list[str]:
    """Take pictures one after the other; return one sentence per failed picture."""
    from playwright.sync_api import Error

    problems = []
    with open_browser() as browser:
        for picture in pictures:
            try:
                with open_page(browser, picture.width, picture.height) as page:
                    png = encode_picture(picture.take(stage, page))
            except (Error, RefusedError) as error:  # the others may succeed
                problems.append(f"failed: {picture.name}: {error}")
                continue
            write_atomically(target / f"{picture.name}.png", png)
            stage.console.print(f"{picture.name}.png, {len(png) // 1000} KB")
    return problems


@contextmanager
def make_folder() -> Iterator[Path]:
    """Create the stage's folder, and delete it with its content when the block ends.

    Some pictures show its name, so it is always the same.
    """
    folder = Path(tempfile.gettempdir()) / "wine-images"
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise NotThereError(f"{folder} exists already: wait for the other capture, or remove it") from error
    try:
        yield folder
    finally:
        rmtree(folder)


def choose_pictures(names: Sequence[str]) -> list[Picture]:
    """The pictures with these names, or all. Raises BadInputError for an unknown name."""
    known = {picture.name: picture for picture in PICTURES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadInputError(f"{', '.join(unknown)}: no such picture; there are {', '.join(known)}")
    return [picture for picture in PICTURES if not names or picture.name in names]


def main() -> int:
    """Take the pictures, and report those that failed."""
    parser = argparse.ArgumentParser(
        prog="python -m images.capture",
        description="Start all servers on free ports, send real traffic, and take the pictures: images/*.png. "
        "All of them take about 20 minutes on two cores. WINE_DATA says which wines.",
        epilog=f"Pictures: {', '.join(picture.name for picture in PICTURES)}.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the pictures to take (all)")
    parser.add_argument("--into", type=Path, default=FOLDER, metavar="FOLDER", help="folder of the pictures (images/)")
    arguments = parser.parse_args()
    pictures = choose_pictures(arguments.names)
    if not arguments.into.is_dir():
        raise NotThereError(f"--into {arguments.into}: there is no such folder")

    from images.stage import Stage

    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its servers stop too
    with make_folder() as folder, Stage(folder, console) as stage:
        problems = take_pictures(pictures, stage, arguments.into)
    console.print(*problems, "Next: look at every picture, then git diff --stat images", sep="\n")
    return FINDING if problems else DONE


if __name__ == "__main__":
    run_command(main)
