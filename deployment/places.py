"""Files in a folder or in a bucket: the same few operations on a Path and on s3://bucket/path.

The keys of a bucket and its address, where it is not Amazon's, come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_ENDPOINT_URL.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from commands import NotThereError

Place = Path | str


def parse_place(text: str) -> Place:
    """An address as it is; anything else is a path."""
    return text if text.startswith("s3://") else Path(text)


def join(place: Place, name: str) -> Place:
    """A file or folder under a place."""
    return place / name if isinstance(place, Path) else f"{place.rstrip('/')}/{name}"


def find_name(place: Place) -> str:
    """The name of a file without what it lies in."""
    return str(place).rsplit("/", 1)[-1]


def exists(place: Place) -> bool:
    """Whether there is a file or folder."""
    with _explaining(place):
        system, path = _find_system(place)
        return bool(system.get_file_info(path).type != fs.FileType.NotFound)


def list_names(place: Place) -> list[str]:
    """The names of the files in a folder, sorted; none where there is no folder."""
    with _explaining(place):
        system, path = _find_system(place)
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(one.base_name for one in found if one.is_file)


def open_file(place: Place) -> pa.NativeFile:
    """Open a file to read any part of it. Raises NotThereError where there is none, or it cannot be read."""
    with _explaining(place):
        system, path = _find_system(place)
        return system.open_input_file(path)


def read_whole(place: Place) -> bytes:
    """Read a file. Raises NotThereError as open_file does."""
    with open_file(place) as file:
        return bytes(file.read())


def write_whole(place: Place, content: pa.Buffer | bytes) -> None:
    """Write a file whole or not at all, and the folders that it lies in. Raises NotThereError where it cannot be."""
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.partial-{os.getpid()}")
        try:
            partial.write_bytes(content)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
        return
    with _explaining(place):  # a bucket shows an object once all of it has come
        system, path = _find_system(place)
        with system.open_output_stream(path) as stream:
            stream.write(content)


def _find_system(place: Place) -> tuple[fs.FileSystem, str]:
    if isinstance(place, Path):
        return fs.LocalFileSystem(), str(place)
    # Else an upload ends with a checksum and does not begin with its length, which other servers than Amazon's refuse.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_REQUIRED")
    system, path = fs.FileSystem.from_uri(place)
    return system, path


@contextmanager
def _explaining(place: Place) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotThereError(f"there is no file {place}") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise NotThereError(f"{place} cannot be reached: {str(error).splitlines()[0]}") from error
