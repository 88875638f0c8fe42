"""Serve the current model over HTTP, in one process or several.

    python -m deployment.serve     (make serve)

WINE_HOST, WINE_PORT and WINE_WORKERS set the address and the number of processes; settings.py has the other settings.
With your own server: uvicorn --factory deployment.serve:create_worker
  --http deployment.api.connections:LimitedConnection     (the limits on slow clients and headers)
"""

import argparse
import gc
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from commands import DONE, BadInputError, NotThereError, require_free_port, run_command
from settings import Settings, load_settings

if TYPE_CHECKING:  # a port in use and a missing model are reported before these slow imports
    from starlette.types import ASGIApp

    from deployment.api.predict import Service
    from deployment.api.traces import Traces

PORTS = {"http": 80, "https": 443}


def create_worker() -> "ASGIApp":
    """Create the API of one process from the settings: uvicorn's factory."""
    settings = load_settings()
    return make_app(settings, make_service(settings))


def make_app(settings: Settings, service: "Service") -> "ASGIApp":
    """Create the API for a service whose model is loaded."""
    from deployment.api.app import create_app
    from deployment.api.callers import Callers

    reduce_latency_spikes()
    origins = list_origins(settings.cors_origins)
    keys = settings.api_key, settings.predict_key, settings.feedback_key, settings.metrics_key
    every, predict, feedback, metrics = (key.get_secret_value() for key in keys)
    hosts = frozenset(settings.hosts.lower().replace(" ", "").split(","))
    callers = Callers(every, predict, feedback, metrics, hosts)
    return create_app(service, settings.in_flight, callers, origins)


def list_origins(text: str) -> list[str]:
    """The origins of WINE_CORS_ORIGINS. Raises BadInputError for one that no browser sends in this form."""
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    for origin in origins:
        if origin not in ("*", "null") and origin != (right := _write_origin(origin)):
            raise BadInputError(f"WINE_CORS_ORIGINS has {origin}, which no browser sends: write {right}")
    return origins


def _write_origin(text: str) -> str:
    """An origin as browsers send it: scheme, host in lower case, and the port unless it is the scheme's default."""
    example = "scheme, host and port, as https://a.example or http://127.0.0.1:3000"
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return example
    if not host or "*" in host or parts.scheme not in PORTS:
        return example
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, PORTS[parts.scheme]) else "")


def reduce_latency_spikes() -> None:
    """Exclude existing objects from garbage collection, and set the thread switch interval to 1 ms, not 5."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(0.001)


def make_service(settings: Settings) -> "Service":
    """Load the model and open the log. Raises their BadInputError and NotThereError."""
    from deployment.api.live_model import LiveModel
    from deployment.api.metrics import Metrics
    from deployment.api.predict import Service
    from deployment.prediction_log.log import PredictionLog
    from deployment.predictor import load_predictor

    metrics, traces = Metrics(), start_traces(settings.otlp_endpoint)
    load = traces.load_predictor if traces else load_predictor
    live = LiveModel(settings.serving_models, metrics.count_load, load)
    log = None
    if settings.log_url != "off":
        log = PredictionLog(settings.log_url, settings.log_days, settings.log_rows)
        log.open()
    return Service(live, metrics, log, settings.batch_rows, settings.body_seconds, settings.fill_blanks, traces)


def start_traces(endpoint: str) -> "Traces | None":
    """Start traces for a collector; None without one. Raises NotThereError if their packages are missing."""
    if not endpoint:
        return None
    try:
        from deployment.api.traces import Traces
    except ModuleNotFoundError as error:
        raise NotThereError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and {error.name} is not installed: pip install "
            "opentelemetry-instrumentation-asgi opentelemetry-exporter-otlp-proto-http, or unset it"
        ) from error
    return Traces(endpoint)


def serve(settings: Settings, service: "Service") -> None:
    """Serve until stopped: in this process, or in several that each load the model and open the log."""
    import uvicorn

    from deployment.api.metrics import FOLDER

    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": "deployment.api.connections:LimitedConnection",
        "log_level": "warning",
        "access_log": False,
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": 10,
    }
    if settings.workers == 1:
        uvicorn.run(make_app(settings, service), **options)
        return
    if service.log:
        service.log.close()
    with tempfile.TemporaryDirectory(prefix="wine-metrics-") as folder:
        os.environ[FOLDER] = folder  # before the processes start: prometheus_client reads it at import
        uvicorn.run("deployment.serve:create_worker", factory=True, workers=settings.workers, **options)


def main() -> int:
    """Serve the current bundle until stopped."""
    argparse.ArgumentParser(
        description="Serve the champion: a form at /, predictions at POST /predict, the routes at /docs. "
        "WINE_HOST, WINE_PORT and WINE_WORKERS set the address, the port and the number of processes."
    ).parse_args()
    settings = load_settings()
    list_origins(settings.cors_origins)  # report an error here, not in one of several processes
    require_free_port(settings.host, settings.port, "set WINE_PORT to another")
    service = make_service(settings)
    metadata = service.live.writer.predictor.metadata
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"{metadata.name} version {metadata.version} on http://{host}:{settings.port}")
    print(f"Next: open http://{host}:{settings.port}, or /docs there; stop with ctrl-c", flush=True)
    serve(settings, service)
    return DONE


if __name__ == "__main__":
    run_command(main)
