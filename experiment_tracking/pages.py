"""MLflow's pages in a browser: runs, metrics and registry.

    python -m experiment_tracking.pages    (make mlflow)

It serves the store of MLFLOW_TRACKING_URI on 127.0.0.1 until ctrl-c. If that is already a server, the server has
the pages, and the command only prints their addresses.
"""

import argparse
import os
import re
import sys
from typing import NoReturn

from commands import DONE, require_free_port, run_command
from settings import ROOT, load_settings

HOST = "127.0.0.1"


def find_address(uri: str, port: int) -> str:
    """The address of the pages: the server's in MLFLOW_TRACKING_URI, without name and password, or this command's."""
    return re.sub(r"//\S*@", "//", uri).rstrip("/") if uri.startswith("http") else f"http://{HOST}:{port}"


def serve_pages(uri: str, port: int) -> NoReturn:
    """Replace this process by MLflow's server, without its job workers, which this project does not use."""
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    os.environ.setdefault("PYTHONWARNINGS", "ignore:starlette.middleware.wsgi is deprecated")  # not this code
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri  # not as an argument: others can read it, with any password
    server = ("mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port))
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", *server])  # nosec B606  # no word is a user's


def main() -> int:
    """Print the addresses of the pages, and serve them if no server does."""
    argparse.ArgumentParser(description="Show runs, metrics and registry in a browser (MLflow's pages).").parse_args()
    settings = load_settings()
    uri, address = settings.mlflow_uri, find_address(settings.mlflow_uri, settings.mlflow_port)
    has_pages = uri.startswith("http")
    if not has_pages:
        require_free_port(HOST, settings.mlflow_port, "set WINE_MLFLOW_PORT to another")

    from experiment_tracking.registry.versions import MODEL
    from experiment_tracking.runs.store import open_store

    experiment_id = open_store(uri, settings.mlflow_artifacts)
    pages = f"  runs:     {address}/#/experiments/{experiment_id}/runs\n  registry: {address}/#/models/{MODEL}"
    if has_pages:
        print(f"MLflow's server shows them:\n{pages}\nNext: open one in a browser")
        return DONE
    print(f"MLflow answers in about half a minute. Stop it with ctrl-c.\n{pages}", flush=True)
    serve_pages(uri, settings.mlflow_port)


if __name__ == "__main__":
    run_command(main)
