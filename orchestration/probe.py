"""Ask the API one question over a real socket, from a server that lives only as long."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from commands import NotThereError
from deployment.app import create_app
from deployment.engine import Engine
from wine_quality_training.bundle import load_bundle

START_SECONDS = 20.0


def ask_api(bundle: Path, wine: dict[str, float]) -> dict[str, Any]:
    """Serve one bundle on a free port of 127.0.0.1, POST one wine to /predict, return the answer."""
    with _serve(bundle) as address:
        answer = httpx.post(f"{address}/predict", json=wine, timeout=START_SECONDS)
        answer.raise_for_status()
        return dict(answer.json())


@contextmanager
def _serve(bundle: Path) -> Iterator[str]:
    config = uvicorn.Config(create_app(Engine(load_bundle(bundle))), host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise NotThereError(f"the API did not start within {START_SECONDS:g} s; see the lines above")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=START_SECONDS)
