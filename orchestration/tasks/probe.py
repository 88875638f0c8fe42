"""Send one request to a temporary API server over a real socket."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import uvicorn
from pydantic import ValidationError

from commands import BadInputError, NotThereError
from deployment.api.app import create_app
from deployment.api.live_model import LiveModel
from deployment.api.metrics import Metrics
from deployment.api.predict import Service
from deployment.api.server_process import HOST, wait_until
from wine_data.schema import ROW, TARGET, WineQuality, feature_frame

START_SECONDS = 20.0


def ask_api(bundle: Path, wine: WineQuality) -> dict[str, Any]:
    """Serve one bundle on a free port of 127.0.0.1, POST one wine to /predict, and return the response."""
    with _serve(bundle) as address:
        answer = httpx.post(f"{address}/predict", json=wine.model_dump(), timeout=START_SECONDS)
        answer.raise_for_status()
        return dict(answer.json())


def pick_wine(holdout: pd.DataFrame) -> tuple[WineQuality, int]:
    """The first holdout wine that the API accepts, with its tasters' grade.

    Raises:
        BadInputError: there is none.
    """
    for values, grade in zip(feature_frame(holdout).to_dict("records"), holdout[TARGET], strict=True):
        with suppress(ValidationError):
            return WineQuality.model_validate(values), int(grade)
    raise BadInputError(f"the API accepts no {ROW} of the holdout: run python -m wine_data.audit to see why")


@contextmanager
def _serve(bundle: Path) -> Iterator[str]:
    service = Service(LiveModel.of_bundle(bundle), Metrics(), log=None)
    server = uvicorn.Server(uvicorn.Config(create_app(service), host=HOST, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the API to start", START_SECONDS, every=0.02)
        if not server.started:
            raise NotThereError("the API did not start; see the lines above")
        yield f"http://{HOST}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=START_SECONDS)
