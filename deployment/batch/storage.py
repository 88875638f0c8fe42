"""Files in a folder or in a bucket: the same operations on a Path and on s3://bucket/path.

AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY hold a bucket's keys, AWS_ENDPOINT_URL its server if it is not Amazon's.
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
    """Return an s3:// address unchanged, anything else as a Path."""
    return text if text.startswith("s3://") else Path(text)


def join(location: Location, name: str) -> Location:
    """The location of a file or folder inside another."""
    return location / name if isinstance(location, Path) else f"{location.rstrip('/')}/{name}"


def find_name(location: Location) -> str:
    """The name of a file without its folder."""
    return str(location).rsplit("/", 1)[-1]


def exists(location: Location) -> bool:
    """Whether a file or folder exists."""
    with _explaining(location):
        system, path = _find_system(location)
        return bool(system.get_file_info(path).type != fs.FileType.NotFound)


def is_folder(location: Location) -> bool:
    """Whether a location is a folder, not a file. Raises NotThereError if it does not exist.

    A bucket has no folders, only files under an address; an address without files counts as a folder.
    """
    with _explaining(location):
        system, path = _find_system(location)
        kind = system.get_file_info(path).type
    if kind == fs.FileType.NotFound and isinstance(location, Path):
        raise NotThereError(f"there is no file or folder {location}")
    return bool(kind != fs.FileType.File)


def list_names(location: Location) -> list[str]:
    """The sorted names of the files in a folder; none if the folder does not exist."""
    with _explaining(location):
        system, path = _find_system(location)
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(one.base_name for one in found if one.is_file)


@contextmanager
def open_file(location: Location) -> Iterator[pa.NativeFile]:
    """Open a file for random access. Raises NotThereError if it does not exist, or a read fails."""
    with _explaining(location):
        system, path = _find_system(location)
        with system.open_input_file(path) as file:
            yield file


def read_whole(location: Location) -> bytes:
    """Read a file. Raises NotThereError as open_file does."""
    with open_file(location) as file:
        return bytes(file.read())


def write_whole(location: Location, content: pa.Buffer | bytes) -> None:
    """Write a file atomically, and create its folders. Raises NotThereError if an upload to a bucket fails."""
    if isinstance(location, Path):
        write_atomically(location, content)
        return
    with _explaining(location):  # a bucket shows an object only when its upload is complete
        system, path = _find_system(location)
        with system.open_output_stream(path) as stream:
            stream.write(content)


def _find_system(location: Location) -> tuple[fs.FileSystem, str]:
    if isinstance(location, Path):
        return fs.LocalFileSystem(), str(location)
    # Otherwise an upload sends a trailing checksum instead of its length, which servers other than Amazon's refuse.
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
