"""Traces by OpenTelemetry: a span for each request that the guard lets in, and in it one for each call of the model.

Only imported where OTEL_EXPORTER_OTLP_ENDPOINT names a collector. The SDK reads the other variables of that standard
itself: OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and so on.
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
    """Makes spans, and sends them from a thread of its own: a collector that is slow or gone delays no answer."""

    def __init__(self, endpoint: str) -> None:
        """Take the address of a collector that speaks OTLP over HTTP."""
        resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", NAME)})
        self._provider = TracerProvider(resource=resource)
        self._exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))

    def load_predictor(self, models: Path) -> Predictor:
        """Load and check the bundle that serves, as predictor.load_predictor does, and trace its predictions."""
        predictor, tracer = load_predictor(models), self._provider.get_tracer(__name__)
        traced = tracer.start_as_current_span("predict", attributes={"wine.model_version": predictor.metadata.version})
        for name in ("predict_one", "predict_probabilities"):
            setattr(predictor, name, traced(getattr(predictor, name)))
        return predictor

    def trace_requests(self, app: ASGIApp) -> ASGIApp:
        """The application with a span for each request. A `traceparent` header makes it part of the caller's trace."""
        return OpenTelemetryMiddleware(
            app,
            default_span_details=_name_span,
            server_request_hook=_add_request_id,
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),  # /metrics has these
            exclude_spans=["receive", "send"],
        )

    def close(self) -> None:
        """Send what waits, within CLOSE_SECONDS; the exporter by itself would ask again for ten."""
        give_up = Timer(CLOSE_SECONDS, self._exporter.shutdown)
        give_up.start()
        self._provider.shutdown()
        give_up.cancel()


def _name_span(scope: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """A name of which there are few, whatever strangers ask for."""
    path = find_path(scope)
    return f"{scope['method']} {path if path in ROUTES else OTHER}", {}


def _add_request_id(span: Span, scope: dict[str, Any]) -> None:
    span.set_attribute("wine.request_id", scope[SCOPE_ID])
