"""All paths, ports and other settings.

    python -m settings [--markdown]    lists the values in force, or prints docs/settings.md

A setting comes from the environment (WINE_PORT=8080), else from a file `.env` in the project's folder, else from the
default here. Only commands and flows call load_settings(); functions get plain values.
"""

import argparse
import getpass
import os
import re
import sys
import tempfile
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict

from commands import DONE, BadInputError, hide_passwords, run_command

ROOT = Path(__file__).resolve().parent
UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/"
BucketAddress = Annotated[str, StringConstraints(pattern=r"^s3://[^/]")]  # a Path would drop one of the two slashes
Place = Annotated[BucketAddress | Path, Field(union_mode="left_to_right")]
STORE = r"(sqlite:///|postgresql(\+\w+)?://|mysql(\+\w+)?://|mssql(\+\w+)?://|https?://).+"
REAL_DATA = "WINE_REAL_DATA"  # a folder that tests read
SCRATCH = ROOT / ".scratch"  # for notebooks that must change nothing else
NOTEBOOK = {  # notebooks run in another folder, where Prefect does not find pyproject.toml
    "PREFECT_HOME": str(ROOT / ".prefect"),
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
PAGE = """# Settings

Export a setting, or write it into the file `.env` in the project's folder: `WINE_PORT=8080`. A command that finds an
invalid value names the setting and ends. `python -m settings` lists the current values. Default paths are in the
project's folder. A path that does not begin with `/` is relative to the folder in which the command runs. A proxy in
the environment (`HTTPS_PROXY`, `ALL_PROXY` and so on) is used for downloads, and never for a server on this machine.

| variable | default | what it is |
| --- | --- | --- |
{rows}

This page is what `python -m settings --markdown` prints.
"""


def prepare_user() -> None:
    """Set a home and a user name where they are missing, as in some containers; MLflow and Prefect need both."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


def prepare_proxies() -> None:
    """Add this machine to NO_PROXY if the environment sets a proxy, so that local requests bypass it."""
    proxies = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]
    for name in proxies:  # GNOME writes socks://, which neither httpx nor requests knows
        os.environ[name] = re.sub("^socks://", "socks5://", os.environ[name])
    given = {name: os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")}
    for name, hosts in given.items() if proxies else ():  # without a proxy, NO_PROXY would hide macOS's own
        hosts = hosts or given["no_proxy"] or given["NO_PROXY"]
        listed = [host.strip() for host in hosts.split(",") if host.strip()]
        os.environ[name] = "*" if "*" in listed else ",".join(dict.fromkeys([*listed, *LOCAL_HOSTS]))


def count_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# On import: every command, flow and notebook imports this file before any client is made.
prepare_user()
prepare_proxies()


def _check_store(address: str) -> str:
    if not re.fullmatch(STORE, address):
        raise ValueError("it must be sqlite:////a/file.db, postgresql://… or another database, or http(s)://…")
    return address


def _check_type(text: str) -> str:
    from wine_data.schema import TYPES  # where it is set: it takes a tenth of a second

    if text not in ("", *TYPES):
        raise ValueError(f"Input should be {' or '.join(map(repr, (*TYPES, '')))}")
    return text


class Settings(BaseSettings):
    """All settings, typed and validated; frozen, so that they stay the same for a whole run."""

    model_config = SettingsConfigDict(
        env_prefix="WINE_",
        env_file=ROOT / ".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    data: str = Field("auto", description="the wines: auto, uci, kaggle, twin, a folder, a file, or s3://bucket/prefix")
    wine_type: Annotated[str, AfterValidator(_check_type)] = Field(
        "",
        validation_alias="WINE_TYPE",
        description="the colour of all wines, for a file without a column for it: red or white",
    )
    downloads: Path = Field(ROOT / "wine_data" / "downloads", description="folder of the files from UCI and S3")
    snapshots: Path = Field(ROOT / "wine_data" / "kept", description="folder of the wines that were used in runs")
    uci_url: str = Field(UCI, description="address of the two UCI originals, or of a mirror")
    s3_block: str = Field(
        "", description="Prefect's S3Bucket block with the keys for s3://; empty: keys of the environment"
    )
    audit_figure: Path = Field(ROOT / "wine_data" / "figures" / "audit.png", description="the figure of the audit")
    seed: int = Field(42, ge=0, lt=2**32, description="seed of every random draw")
    folds: int = Field(5, ge=2, le=20, description="folds of the leak-free cross-validation")
    host: str = Field("127.0.0.1", description="address the API listens on")
    port: int = Field(8000, ge=1, le=65535, description="port the API listens on")
    workers: int = Field(1, ge=1, le=64, description="processes of the API")
    api_key: SecretStr = Field(SecretStr(""), description="key for all routes; if no key is set, the API is open")
    predict_key: SecretStr = Field(SecretStr(""), description="key for all routes but /feedback and /metrics")
    feedback_key: SecretStr = Field(SecretStr(""), description="key for /feedback only")
    metrics_key: SecretStr = Field(SecretStr(""), description="key for /metrics only")
    cors_origins: str = Field(
        "", description="web sites whose pages may call the API: https://a.example,https://b.example"
    )
    hosts: str = Field(
        "", description="host names that a proxy on this machine passes to the API; needed if no key is set"
    )
    in_flight: int = Field(256, ge=1, description="requests that a process works on at once; more get 503")
    batch_rows: int = Field(5_000, ge=1, description="most wines in one request to /predict/batch")
    fill_blanks: bool = Field(
        False, description="fill blank measurements with the means of the training wines, and add a warning"
    )
    body_seconds: float = Field(10, gt=0, description="seconds a request may take to arrive")
    otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^(https?://.+)?$")] = Field(
        "",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OpenTelemetry collector that gets traces of the API's requests, as http://127.0.0.1:4318",
    )
    log_url: str = Field(
        f"sqlite:///{ROOT}/deployment/predictions.db",
        description="database of the prediction log, an SQLAlchemy address; off: nothing is logged",
    )
    log_days: float = Field(90, gt=0, description="days after which the log removes rows")
    log_rows: int = Field(1_000_000, ge=1, description="newest answers that the log keeps, besides graded ones")
    mlflow_uri: Annotated[str, AfterValidator(_check_store)] = Field(
        f"sqlite:///{ROOT}/mlflow.db",
        validation_alias="MLFLOW_TRACKING_URI",
        description="MLflow's tracking and registry store",
    )
    mlflow_port: int = Field(5000, ge=1, le=65535, description="port of MLflow's pages, of make mlflow")
    mlflow_artifacts: Place = Field(
        ROOT / "mlartifacts",
        description="MLflow's artifacts: a folder or s3://bucket/path; existing artifacts are not moved",
    )
    training_models: Path = Field(ROOT / "wine_quality_training" / "models", description="folder of the trained models")
    serving_models: Path = Field(ROOT / "deployment" / "models", description="folder of the serving bundles")
    batch_wines: Place = Field(
        ROOT / "deployment" / "to_score", description="the CSV and Parquet files to score: a folder or s3://bucket/path"
    )
    batch_answers: Place = Field(
        ROOT / "deployment" / "answers", description="the answers to them: a folder or s3://bucket/path"
    )
    dask: str = Field(
        "",
        description="Dask cluster for fits, trials and files: local, or tcp://scheduler:8786; empty: threads",
    )
    batch_cores: int = Field(
        default_factory=count_cores,
        ge=1,
        description="parts of a file that are scored at once; default: the number of cores",
    )
    prefect_port: int = Field(4200, ge=1, le=65535, description="port of the Prefect server of make prefect")
    keep_days: int = Field(
        90,
        ge=1,
        description="days after which the server of make prefect removes a run that ended, and make tidy those of "
        "MLflow with their models, wines, bundles, and downloads from S3 that nobody needs",
    )
    keep_reports: int = Field(50, ge=1, description="newest windows whose reports make tidy keeps, some 12 MB each")
    load_users: int = Field(20, ge=1, description="users of the load test")
    load_rate: float = Field(5, gt=0, description="users that the load test starts each second")
    load_seconds: int = Field(60, ge=1, description="length of the load test")
    load_p95: float = Field(100, gt=0, description="milliseconds that 95 % of the load test's answers may take")
    load_reports: Path = Field(ROOT / "deployment" / "load_reports", description="folder of the load test's reports")
    window_rows: int = Field(1_000, ge=200, description="wines in a window of monitoring")
    window_hours: float = Field(0, ge=0, description="hours in a window of monitoring; 0: use WINE_WINDOW_ROWS")
    cool_down_hours: float = Field(24, ge=0, description="hours after a retraining in which no alarm starts another")
    monitoring_reports: Path = Field(ROOT / "monitoring" / "reports", description="folder of monitoring's reports")
    webhook: SecretStr = Field(
        SecretStr(""), description="address to which failed flows and alarms are sent; empty: none"
    )

    def find_key(self, own: Literal["predict_key", "feedback_key"]) -> str:
        """The key that a client of this project sends: the scoped one, or else the one for all routes."""
        scoped: SecretStr = getattr(self, own)
        return (scoped or self.api_key).get_secret_value()


def load_settings() -> Settings:
    """Read the settings. Raises BadInputError that names the wrong variable, or an unreadable file .env."""
    try:
        settings = Settings()
        _report_unknown(*sorted(name.upper() for name in [*os.environ, *dotenv_values(ROOT / ".env")]))
    except ValidationError as error:
        raise BadInputError("; ".join(_explain_setting(problem) for problem in error.errors())) from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{ROOT / '.env'} is not UTF-8: save it in that encoding") from error
    return settings


def move_paths(folder: Path) -> dict[str, str]:
    """The environment of this process, with every path that the project writes to moved into a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WINE_", "PREFECT_"))}
    for name, setting in Settings.model_fields.items():
        scheme, inside, path = str(setting.default).partition(f"{ROOT}/")
        if inside:
            place = path if path.endswith("/models") else Path(path).name  # two packages have models
            environment[name_variable(name)] = f"{scheme}{folder / place}"
    return environment | {
        "PREFECT_HOME": str(folder / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def start_notebook(scratch: bool) -> Settings:
    """Load the settings for a notebook. It uses the project's stores, or with `scratch` its own.

    The notebook's folder is removed from the import path: orchestration/monitoring.py would shadow the package
    monitoring.
    """
    sys.path[:] = filter(None, sys.path)
    for name, value in NOTEBOOK.items():
        os.environ.setdefault(name, value)
    if scratch:
        SCRATCH.mkdir(exist_ok=True)
        os.environ.update(move_paths(SCRATCH))
    return load_settings()


@cache
def _report_unknown(*variables: str) -> None:
    """Warn of variables that begin with WINE_ and are no setting, once per process."""
    known = [*map(name_variable, Settings.model_fields), REAL_DATA]
    for name in variables:
        if name.startswith("WINE_") and name not in known:
            nearest = get_close_matches(name, known, n=1, cutoff=0.75)
            hint = f"is {nearest[0]} meant?" if nearest else "python -m settings lists them"
            print(f"warning: {name} is no setting; {hint}", file=sys.stderr)


def name_variable(name: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias) if alias else f"WINE_{name.upper()}"


def list_values(settings: Settings) -> dict[str, str]:
    """Variables and their values as text; secrets are hidden, paths inside the project are relative."""
    return {name_variable(name): _show_value(getattr(settings, name)) for name in Settings.model_fields}


def render_settings() -> str:
    """All settings with their defaults, as docs/settings.md."""
    fields = Settings.model_fields.items()
    rows = [
        f"| `{name_variable(name)}` | {_show_default(each.default)} | {each.description} |" for name, each in fields
    ]
    return PAGE.format(rows="\n".join(rows))


def _show_default(value: object) -> str:
    text = "" if value is PydanticUndefined else _show_value(value)
    return f"`{text}`" if text else ""


def _show_value(value: object) -> str:
    text = str(value).replace(f"sqlite:///{ROOT}/", "sqlite:///").removeprefix(f"{ROOT}/")
    return hide_passwords(text)


def main() -> int:
    """List the settings."""
    parser = argparse.ArgumentParser(description="List every setting, and its value.")
    parser.add_argument("--markdown", action="store_true", help="print docs/settings.md")
    if parser.parse_args().markdown:
        print(render_settings(), end="")
        return DONE
    values = list_values(load_settings())
    width = max(map(len, values))
    for (variable, value), field in zip(values.items(), Settings.model_fields.values(), strict=True):
        print(f"{variable:{width}}  {value or '(empty)'}\n{'':{width}}  {field.description}")
    print("\nNext: export a variable, or write it into .env here")
    return DONE


def _explain_setting(problem: ErrorDetails) -> str:
    name = str(problem["loc"][0])
    variable = name if name.isupper() else f"WINE_{name.upper()}"
    return f"{variable} is set to {_show_value(problem['input'])!r}: {problem['msg'].removeprefix('Value error, ')}"


if __name__ == "__main__":
    run_command(main)
