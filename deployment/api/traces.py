"""OpenTelemetry traces: a span for each request that the guard accepts, with a child span for each call of the model.

Imported only if OTEL_EXPORTER_OTLP_ENDPOINT names a collector. The SDK reads the standard's other variables itself:
OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and so on.
"""

import os
from pathlib import Path
from threading import Timer
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span
from starlette.types import ASGIApp

from deployment.api.limits import find_path
from deployment.api.metrics import OTHER, ROUTES
from deployment.api.problems import SCOPE_ID
from deployment.predictor import Predictor, load_predictor
from wine_data.schema import NAME

CLOSE_SECONDS = 3.0


class Traces:
    """Creates spans, and exports them on a separate thread: a slow or missing collector delays no response."""

    def __init__(self, endpoint: str) -> None:
        """Set up the export to a collector's address, with OTLP over HTTP."""
        resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", NAME)})
        self._provider = TracerProvider(resource=resource)
        self._exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))

    def load_predictor(self, models: Path) -> Predictor:
        """Load and check the serving bundle, as predictor.load_predictor does, and trace its predictions."""
        predictor, tracer = load_predictor(models), self._provider.get_tracer(__name__)
        traced = tracer.start_as_current_span("predict", attributes={"wine.model_version": predictor.metadata.version})
        for name in ("predict_one", "predict_probabilities"):
            setattr(predictor, name, traced(getattr(predictor, name)))
        return predictor

    def trace_requests(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application in a span per request. A `traceparent` header makes it part of the client's trace."""
        return OpenTelemetryMiddleware(
            app,
            default_span_details=_name_span,
            server_request_hook=_add_request_id,
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),  # /metrics has these
            exclude_spans=["receive", "send"],
        )

    def close(self) -> None:
        """Send the waiting spans within CLOSE_SECONDS; otherwise the exporter would retry for ten seconds."""
        give_up = Timer(CLOSE_SECONDS, self._exporter.shutdown)
        give_up.start()
        self._provider.shutdown()
        give_up.cancel()


def _name_span(scope: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Name a span by method and route; all unknown paths share one name."""
    path = find_path(scope)
    return f"{scope['method']} {path if path in ROUTES else OTHER}", {}


def _add_request_id(span: Span, scope: dict[str, Any]) -> None:
    span.set_attribute("wine.request_id", scope[SCOPE_ID])
