"""Wines in a bucket: fetched when they changed, uploaded by one command, through Prefect's S3Bucket block.

    WINE_DATA=s3://bucket/prefix make pipeline
    python -m orchestration.s3 upload FOLDER s3://bucket/prefix
    python -m orchestration.s3 download s3://bucket/prefix

The keys come from where boto3 looks, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY first, or from the saved
S3Bucket block that WINE_S3_BLOCK names. They are never a parameter, so no run can show them. AWS_ENDPOINT_URL
names a server other than Amazon's.
"""

import argparse
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from atomic_files import write_atomically
from commands import DONE, BadInputError, NotThereError, run_command
from settings import load_settings
from wine_data.sources.load import ORIGINALS, TRAIN_FILE, VALIDATION_FILE, WineData, load_wines, read_folder

SCHEME, ETAGS = "s3://", ".etags.json"
PAIR = (TRAIN_FILE, VALIDATION_FILE)
DATA_SETS = (PAIR, tuple(ORIGINALS.values()))
# Three tries a request, and a server that says nothing for half a minute counts as gone.
PATIENCE = {"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 3, "mode": "standard"}}
REFUSED_KEYS = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403")


@dataclass(frozen=True)
class Location:
    """A folder in a bucket; its prefix has no slash at its ends and may be empty."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        """The address, as WINE_DATA takes it."""
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, name: str) -> str:
        """The key of a file in this folder."""
        return f"{self.prefix}/{name}".lstrip("/")


def load_source(source: str, seed: int, downloads: Path, uci_url: str, block: str = "") -> WineData:
    """Load wines as load_wines does, and from s3://bucket/prefix too.

    Raises:
        BadInputError: the source is unknown, its files are not what they should be, or the keys are refused.
        NotThereError: the source cannot be reached, or there is no such bucket.
    """
    if not source.startswith(SCHEME):
        return load_wines(source, seed, downloads, uci_url)
    place = parse_location(source)
    folder = fetch_folder(place, downloads, block)
    return replace(load_wines(str(folder), seed, downloads, uci_url), source=str(place))


def parse_location(address: str) -> Location:
    """Read s3://bucket/prefix. The error leaves out what was given, for somebody may have put keys into it."""
    found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([^@:?]*))?", address)
    if not found:
        raise BadInputError(
            "an address in a bucket is s3://bucket/prefix; keys go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return Location(found[1], (found[2] or "").strip("/"))


def fetch_folder(place: Location, downloads: Path, block: str = "") -> Path:
    """Fetch the data set of a place into a folder of its own under `downloads`, and return that folder.

    A file that is there, whole and of the same ETag is kept: where nothing changed, only the list of
    names travels. Each file is written whole or not at all.
    """
    folder = downloads / "s3" / place.bucket / place.prefix
    bucket = open_bucket(place, block)
    with _told(place):
        listed = bucket.list_objects(f"{place.prefix}/" if place.prefix else "", delimiter="/", _sync=True)
    found = {Path(item["Key"]).name: item for item in listed}
    names = _choose_data_set(set(found), str(place))
    folder.mkdir(parents=True, exist_ok=True)
    kept = _read_etags(folder)
    for name in names:
        etag = found[name]["ETag"]
        if not _is_kept(folder / name, etag, kept):
            _fetch_file(bucket, place, name, found[name]["Size"], folder)
            kept[name] = {"etag": etag, "sha256": _digest(folder / name)}
            write_atomically(folder / ETAGS, json.dumps(kept, indent=2).encode())
    for other in {name for data_set in DATA_SETS for name in data_set} - set(names):
        (folder / other).unlink(missing_ok=True)  # it is gone from the bucket: it may not be read instead
    return folder


def upload_folder(folder: Path, place: Location, block: str = "") -> list[str]:
    """Upload the data set of a folder, once it has been read as the pipeline would; return the names.

    Files over 8 MB go in parts. An interrupted upload leaves the object that was there before.
    """
    if not folder.is_dir():
        raise BadInputError(f"{folder} is no folder")
    names = _choose_data_set({path.name for path in folder.iterdir()}, str(folder))
    read_folder(folder, seed=0)
    bucket = open_bucket(place, block)
    for name in names:
        with _told(place), _show_progress(folder / name) as advance:
            bucket.upload_from_path(folder / name, place.key(name), Callback=advance, _sync=True)
    return list(names)


def open_bucket(place: Location, block: str = "") -> Any:
    """The S3Bucket block of a place, with the keys of a saved block or else of the environment.

    Its methods take _sync=True: where an event loop runs, as in a notebook, they would return a coroutine.
    """
    try:
        from prefect_aws.credentials import AwsCredentials
        from prefect_aws.s3 import S3Bucket
    except ModuleNotFoundError as error:
        raise NotThereError(f"{place} needs the extra: .venv/bin/python -m uv pip install prefect-aws boto3") from error
    if block:
        try:
            saved: Any = S3Bucket.load(block)
            credentials = saved.credentials
        except ValueError as error:  # Prefect's word for a block that is not there
            raise NotThereError(f"WINE_S3_BLOCK={block} is no S3Bucket block of this Prefect server") from error
    else:
        credentials = AwsCredentials(
            aws_access_key_id=os.environ.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=_keep_secret(os.environ.get("AWS_SECRET_ACCESS_KEY")),
            aws_session_token=os.environ.get("AWS_SESSION_TOKEN"),
            aws_client_parameters=_reach_server(),
        )
    return S3Bucket(bucket_name=place.bucket, credentials=credentials)


def _reach_server() -> Any:
    """Where the server is and how long to wait for it.

    The address is said here, and the keys above, though boto3 would find them: prefect-aws keeps one client
    for all credentials that say the same, so what only the environment says would never change in a process.
    """
    from prefect_aws.client_parameters import AwsClientParameters

    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    style = {"s3": {"addressing_style": "path"}} if address else {}  # few other servers have a host name a bucket
    return AwsClientParameters(endpoint_url=address, config={**PATIENCE, **style})


def _keep_secret(value: str | None) -> SecretStr | None:
    return SecretStr(value) if value else None


@contextmanager
def _told(place: Location) -> Iterator[None]:
    """Turn what boto3 raises into what a user can do about it. Its own words may hold keys, so they are not shown."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise BadInputError(f"{place} needs keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except (ClientError, BotoCoreError, Boto3Error, OSError) as error:
        raise _explain(error, place) from error


def _explain(error: Exception, place: Location) -> Exception:
    """The error of this project for one of boto3's, which an upload wraps in another."""
    from boto3.exceptions import S3UploadFailedError

    inner = error.__context__ if isinstance(error, S3UploadFailedError) and error.__context__ else error
    response = getattr(inner, "response", None) or {}  # a broken connection has one that is None
    code = str(response.get("Error", {}).get("Code", ""))
    if code in REFUSED_KEYS:
        return BadInputError(
            f"{place} refuses these keys ({code}): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the block"
        )
    if code == "NoSuchBucket":
        return NotThereError(f"{place}: there is no bucket {place.bucket}. Make it, or correct the address")
    if code in ("NoSuchKey", "404"):
        return NotThereError(f"{place}: a file went away while it was fetched; try again")
    if isinstance(error, OSError):
        return error  # this side's disk
    return NotThereError(f"{place} could not be reached, or broke off ({code or type(inner).__name__}); try again")


def _choose_data_set(names: set[str], where: str) -> tuple[str, ...]:
    for data_set in DATA_SETS:
        if names.issuperset(data_set):
            return data_set
    raise BadInputError(f"{where} holds neither {' and '.join(DATA_SETS[0])} nor {' and '.join(DATA_SETS[1])}")


def _fetch_file(bucket: Any, place: Location, name: str, size: int, folder: Path) -> None:
    partial = folder / f".{name}.partial-{os.getpid()}"
    try:
        with _told(place):
            bucket.download_object_to_path(place.key(name), partial, _sync=True)
        if partial.stat().st_size != size:
            raise NotThereError(f"{place}/{name} changed while it was fetched; try again")
        partial.replace(folder / name)
    finally:
        partial.unlink(missing_ok=True)


def _is_kept(path: Path, etag: str, kept: dict[str, dict[str, str]]) -> bool:
    known = kept.get(path.name, {})
    return path.is_file() and known.get("etag") == etag and known.get("sha256") == _digest(path)


def _read_etags(folder: Path) -> dict[str, dict[str, str]]:
    try:
        kept = json.loads((folder / ETAGS).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _show_progress(path: Path) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(path.name, total=path.stat().st_size)
        yield lambda count: progress.advance(bar, count)


def main() -> int:
    """Upload a folder's data set to a bucket, or download one."""
    parser = argparse.ArgumentParser(description="Wines in a bucket: upload a data set, or download one.")
    orders = parser.add_subparsers(dest="order", required=True)
    upload = orders.add_parser("upload", help="put the data set of a folder into a bucket")
    upload.add_argument("folder", type=Path)
    download = orders.add_parser("download", help="fetch a data set, where it changed, and say where it lies")
    for order in (upload, download):
        order.add_argument("address", metavar="s3://bucket/prefix")
    given, settings = parser.parse_args(), load_settings()
    place = parse_location(given.address)
    logging.getLogger("prefect.S3Bucket").setLevel(logging.WARNING)  # what it did is printed below
    if given.order == "upload":
        names = upload_folder(given.folder, place, settings.s3_block)
        print(f"{place} holds {' and '.join(names)}")
        print(f"Next: WINE_DATA={place} make pipeline")
    else:
        folder = fetch_folder(place, settings.downloads, settings.s3_block)
        print(f"{place} lies in {folder}")
        print(f"Next: WINE_DATA='{folder}' with any command")
    return DONE


if __name__ == "__main__":
    run_command(main)
