"""Wines in an S3 bucket: download them if they changed, and upload them with one command.

    WINE_DATA=s3://bucket/prefix make pipeline
    python -m orchestration.s3 upload FOLDER s3://bucket/prefix
    python -m orchestration.s3 download s3://bucket/prefix

The keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS's own files, or Prefect's saved S3Bucket block that
WINE_S3_BLOCK names. They are never a parameter, so no run can show them. AWS_ENDPOINT_URL or the block names a server
other than Amazon's.
"""

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from atomic_files import write_atomically
from commands import DONE, BadInputError, NotThereError, run_command
from settings import load_settings
from wine_data.sources.load import ORIGINALS, TRAIN_FILE, VALIDATION_FILE, WineData, load_wines

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

SCHEME = "s3://"
PAIR = (TRAIN_FILE, VALIDATION_FILE)
DATA_SETS = (PAIR, tuple(ORIGINALS.values()))
# As pyarrow writes them; it has no name of its own for an expired token or a request without keys.
REFUSED_KEYS = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNKNOWN (HTTP status 400)",
    "UNKNOWN (HTTP status 403)",
)


def load_bucket(address: str, seed: int, downloads: Path, block: str = "") -> WineData:
    """Load wines from s3://bucket/prefix, as load_wines does from a folder.

    Raises:
        BadInputError: the files are invalid, or the keys are refused.
        NotThereError: the bucket cannot be reached, or does not exist.
    """
    address = check_address(address)
    folder = fetch_folder(address, downloads, block)
    return replace(load_wines(str(folder), seed, downloads, uci_url=""), source=address)


def check_address(address: str) -> str:
    """Return s3://bucket/prefix without a slash at its end.

    The error does not show the address, which may contain keys.
    """
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^@:?]*)?", address):
        raise BadInputError(
            "use an address of the form s3://bucket/prefix; keys go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return address.rstrip("/")


def fetch_folder(address: str, downloads: Path, block: str = "") -> Path:
    """Download the data set at s3://bucket/prefix to its own folder in `downloads`, and return that folder.

    A file with the same size and time is kept: if nothing changed, only the file list is transferred. Each file is
    written atomically.
    """
    path = address.removeprefix(SCHEME)
    folder = downloads / "s3" / path
    with _explain_errors(address):
        bucket = open_bucket(address, block)
        found = _list_files(bucket, path)
        names = _choose_data_set(set(found), address)
        for name in names:
            if _is_kept(folder / name, found[name]):
                continue
            with bucket.open_input_file(found[name].path) as file:
                write_atomically(folder / name, file.read())
            os.utime(folder / name, ns=(found[name].mtime_ns, found[name].mtime_ns))
    for other in {name for data_set in DATA_SETS for name in data_set} - set(names):
        (folder / other).unlink(missing_ok=True)  # no longer in the bucket: it must not be read instead
    return folder


def upload_folder(folder: Path, address: str, block: str = "") -> list[str]:
    """Upload the data set of a folder after reading it as the pipeline would; return the file names.

    Large files are uploaded in parts. An interrupted upload keeps the earlier object.
    """
    if not folder.is_dir():
        raise BadInputError(f"{folder} is not a folder")
    names = _choose_data_set({path.name for path in folder.iterdir()}, str(folder))
    load_wines(str(folder.resolve()), seed=0, downloads=folder, uci_url="")
    for name in names:
        content = (folder / name).read_bytes()
        with _explain_errors(address), Console(stderr=True).status(f"Uploading {name}, {len(content) / 1e6:.1f} MB"):
            bucket = open_bucket(address, block)
            with bucket.open_output_stream(f"{address.removeprefix(SCHEME)}/{name}") as stream:
                stream.write(content)
    return list(names)


def open_bucket(address: str, block: str = "") -> "FileSystem":
    """Open the file system of an address, with the keys of a saved block, else of the environment."""
    from pyarrow import fs

    # Otherwise an upload sends a trailing checksum instead of its length, which servers other than Amazon's refuse.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_REQUIRED")
    if not block:
        return fs.FileSystem.from_uri(address)[0]
    try:
        from prefect_aws.s3 import S3Bucket

        saved: Any = S3Bucket.load(block)
    except ModuleNotFoundError as error:
        raise NotThereError("WINE_S3_BLOCK needs the extra: .venv/bin/python -m uv pip install prefect-aws") from error
    except ValueError as error:  # Prefect raises it for a missing block
        raise NotThereError(f"WINE_S3_BLOCK={block} is no S3Bucket block of this Prefect server") from error
    session = saved.credentials.get_boto3_session()
    keys, server = session.get_credentials(), saved.credentials.aws_client_parameters.endpoint_url
    if keys is None:
        raise BadInputError(
            f"the S3Bucket block {block} has no keys, and there are none on this machine: add them to the block"
        )
    return fs.S3FileSystem(
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        session_token=keys.token,
        endpoint_override=server,
        region=session.region_name or (None if server else fs.resolve_s3_region(address.split("/")[2])),
    )


@contextmanager
def _explain_errors(address: str) -> Iterator[None]:
    """Turn pyarrow's errors into advice for the user. Its messages may contain keys, so they are not shown."""
    try:
        yield
    except OSError as error:
        found = re.search(r"AWS Error ([A-Z_]+(?: \(HTTP status \d+\))?)", str(error))
        if found is None:
            raise  # an error of the local disk
        code = found[1]
        if code in REFUSED_KEYS:
            raise BadInputError(
                f"{address} refuses these keys, or there are none ({code}): "
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the block"
            ) from error
        if code == "NO_SUCH_BUCKET":
            bucket = address.split("/")[2]
            raise NotThereError(f"{address}: there is no bucket {bucket}. Create it, or correct the address") from error
        raise NotThereError(f"{address} could not be reached, or the connection broke ({code}); try again") from error


def _list_files(bucket: "FileSystem", path: str) -> "dict[str, FileInfo]":
    from pyarrow.fs import FileSelector

    try:
        return {found.base_name: found for found in bucket.get_file_info(FileSelector(path)) if found.is_file}
    except FileNotFoundError:
        return {}


def _choose_data_set(names: set[str], where: str) -> tuple[str, ...]:
    for data_set in DATA_SETS:
        if names.issuperset(data_set):
            return data_set
    raise BadInputError(f"{where} holds neither {' and '.join(DATA_SETS[0])} nor {' and '.join(DATA_SETS[1])}")


def _is_kept(path: Path, found: "FileInfo") -> bool:
    if not path.is_file():
        return False
    kept = path.stat()
    return (kept.st_size, kept.st_mtime_ns) == (found.size, found.mtime_ns)


def main() -> int:
    """Upload a folder's data set to a bucket, or download a data set."""
    parser = argparse.ArgumentParser(description="Upload wines to a bucket, or download them.")
    orders = parser.add_subparsers(dest="order", required=True)
    upload = orders.add_parser("upload", help="upload the data set in a folder")
    upload.add_argument("folder", type=Path)
    download = orders.add_parser("download", help="download a data set if it changed, and print its folder")
    for order in (upload, download):
        order.add_argument("address", metavar="s3://bucket/prefix")
    given, settings = parser.parse_args(), load_settings()
    address = check_address(given.address)
    if given.order == "upload":
        names = upload_folder(given.folder, address, settings.s3_block)
        print(f"{address} holds {' and '.join(names)}")
        print(f"Next: WINE_DATA={address} make pipeline")
    else:
        folder = fetch_folder(address, settings.downloads, settings.s3_block)
        print(f"{address} lies in {folder}")
        print(f"Next: WINE_DATA='{folder}' with any command")
    return DONE


if __name__ == "__main__":
    run_command(main)
