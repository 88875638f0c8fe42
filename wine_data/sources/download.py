"""Download the published files: the originals from UCI, the pair from Kaggle."""

from pathlib import Path

import pooch
import requests

from commands import BadInputError, NotThereError

UCI_FILES = {  # SHA-256 of the files that UCI has published since 2009
    "winequality-red.csv": "sha256:4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e",
    "winequality-white.csv": "sha256:76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
}
KAGGLE_SETS = ("subhajournal/wine-quality-data-combined", "rajyellow46/wine-quality")  # train, validation


def download_uci(folder: Path, url: str, timeout: float) -> None:
    """Download the two originals into a folder, with a progress bar; intact files are kept.

    Each file is checked against its hash before it gets its name, so a failed download leaves no file. `url` ends with
    a slash; `timeout` is in seconds, for each step.

    Raises:
        NotThereError: the server cannot be reached, or has no such file.
        BadInputError: the downloaded file is not the published one.
    """
    pooch.get_logger().setLevel("WARNING")  # else it announces a download that may still fail
    client = pooch.create(folder, base_url=url, registry=UCI_FILES, retry_if_failed=0)
    fetch = pooch.HTTPDownloader(progressbar=True, timeout=timeout)
    for name in UCI_FILES:
        try:
            client.fetch(name, downloader=fetch)
        except requests.RequestException as error:
            raise NotThereError(
                f"{url}{name} could not be downloaded ({_say_why(error)}): try again, put both files into wine_data/, "
                "or set WINE_UCI_URL to a mirror"
            ) from error
        except ValueError as error:  # pooch raises it for a wrong hash
            raise BadInputError(f"{url}{name} is not the published file: its SHA-256 differs") from error


def download_kaggle() -> tuple[Path, Path]:
    """Download the train and the validation file from Kaggle; return their paths in kagglehub's cache.

    Raises:
        NotThereError: the extra is not installed, or Kaggle cannot be reached.
        BadInputError: a set does not hold exactly one CSV file.
    """
    try:
        import kagglehub
        from kagglehub.exceptions import KaggleApiHTTPError
    except ModuleNotFoundError as error:
        raise NotThereError("WINE_DATA=kaggle needs the extra: .venv/bin/python -m uv pip install kagglehub") from error
    paths = []
    for name in KAGGLE_SETS:
        try:
            folder = Path(kagglehub.dataset_download(name))
        except (requests.RequestException, KaggleApiHTTPError) as error:
            raise NotThereError(f"Kaggle's {name} could not be downloaded ({_say_why(error)})") from error
        files = sorted(folder.rglob("*.csv"))
        if len(files) != 1:
            raise BadInputError(f"Kaggle's {name} should hold one CSV file and holds {len(files)}: see {folder}")
        paths.append(files[0])
    return paths[0], paths[1]


def _say_why(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "it took too long"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__
