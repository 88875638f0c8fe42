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

from atomic_files import write_atomically
from commands import NotThereError

Location = Path | str


def parse_location(text: str) -> Location:
    """An address as it is; anything else is a path."""
    return text if text.startswith("s3://") else Path(text)


def join(location: Location, name: str) -> Location:
    """A file or folder under a place."""
    return location / name if isinstance(location, Path) else f"{location.rstrip('/')}/{name}"


def find_name(location: Location) -> str:
    """The name of a file without what it lies in."""
    return str(location).rsplit("/", 1)[-1]


def exists(location: Location) -> bool:
    """Whether there is a file or folder."""
    with _explaining(location):
        system, path = _find_system(location)
        return bool(system.get_file_info(path).type != fs.FileType.NotFound)


def is_folder(location: Location) -> bool:
    """Whether there is a folder, and not a file. Raises NotThereError where there is neither.

    A bucket has no folders, only files under an address: one that has none yet is taken for a folder.
    """
    with _explaining(location):
        system, path = _find_system(location)
        kind = system.get_file_info(path).type
    if kind == fs.FileType.NotFound and isinstance(location, Path):
        raise NotThereError(f"there is no file or folder {location}")
    return bool(kind != fs.FileType.File)


def list_names(location: Location) -> list[str]:
    """The names of the files in a folder, sorted; none where there is no folder."""
    with _explaining(location):
        system, path = _find_system(location)
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(one.base_name for one in found if one.is_file)


@contextmanager
def open_file(location: Location) -> Iterator[pa.NativeFile]:
    """Open a file to read any part of it. Raises NotThereError where there is none, or a read of it fails."""
    with _explaining(location):
        system, path = _find_system(location)
        with system.open_input_file(path) as file:
            yield file


def read_whole(location: Location) -> bytes:
    """Read a file. Raises NotThereError as open_file does."""
    with open_file(location) as file:
        return bytes(file.read())


def write_whole(location: Location, content: pa.Buffer | bytes) -> None:
    """Write a file whole or not at all, and the folders that it lies in. Raises NotThereError where it cannot be."""
    if isinstance(location, Path):
        write_atomically(location, content)
        return
    with _explaining(location):  # a bucket shows an object once all of it has come
        system, path = _find_system(location)
        with system.open_output_stream(path) as stream:
            stream.write(content)


def _find_system(location: Location) -> tuple[fs.FileSystem, str]:
    if isinstance(location, Path):
        return fs.LocalFileSystem(), str(location)
    # Else an upload ends with a checksum and does not begin with its length, which other servers than Amazon's refuse.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_REQUIRED")
    system, path = fs.FileSystem.from_uri(location)
    return system, path


@contextmanager
def _explaining(location: Location) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotThereError(f"there is no file {location}") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise NotThereError(f"{location} cannot be reached: {str(error).splitlines()[0]}") from error
