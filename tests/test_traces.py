"""Traces of requests: what reaches a collector, and what the API does where there is none."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from settings import ROOT
from tests.conftest import NOWHERE, Served, run_api
from tests.messages import assert_failed_in_one_line
from tests.test_schema import WINE
from tests.waiting import free_port
from tests.web import WEB

pytestmark = pytest.mark.full
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
ONE, CALLER = {"Content-Type": "application/json"}, "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector(HTTPServer):
    """A server in the place of an OpenTelemetry collector, which keeps the spans that are posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Spans)
        self.spans: list[Any] = []
        self.services: set[str] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def name_spans(self) -> list[str]:
        return sorted(span.name for span in self.spans)


class Spans(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        posted = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for group in posted.resource_spans:
            self.server.services.add(read_attributes(group.resource)["service.name"])
            self.server.spans += [span for scope in group.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def read_attributes(described: Any) -> dict[str, str]:
    return {one.key: one.value.string_value or str(one.value.int_value) for one in described.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    for package in ("opentelemetry.instrumentation.asgi", "opentelemetry.exporter.otlp.proto.http"):
        pytest.importorskip(package, reason=f"{package} is not installed: the extra traces of pyproject.toml has it")
    with Collector() as server:
        yield server
        server.shutdown()


def test_a_collector_gets_each_request_with_its_id_and_its_prediction(served: Served, collector: Collector) -> None:
    environment = served.environment | {ENDPOINT: f"http://127.0.0.1:{collector.server_port}/"}
    with run_api(environment) as (address, _):
        asked = ONE | {"traceparent": f"00-{CALLER}-00f067aa0ba902b7-01"}
        request_id = WEB.post(f"{address}/predict", json=WINE, headers=asked).raise_for_status().json()["request_id"]
        WEB.post(f"{address}/predict/batch", json=[WINE, WINE]).raise_for_status()
        assert WEB.post(f"{address}/predict", json={}).status_code == 422
        assert WEB.get(f"{address}/a/secret/path").status_code == 404
    names = collector.name_spans()  # the server has ended, and sent them before
    assert collector.services == {"wine-quality"}
    assert names.count("GET other") == 1
    assert [name for name in names if name not in ("GET /ready", "GET other")] == [
        *("POST /predict", "POST /predict", "POST /predict/batch", "predict", "predict", "predict")
    ]
    by_name = {span.name: span for span in reversed(collector.spans) if span.name != "predict"}
    first = by_name["POST /predict"]
    assert read_attributes(first)["wine.request_id"] == request_id
    assert read_attributes(first)["http.status_code"] == "200"
    assert first.trace_id.hex() == CALLER
    inside = [span for span in collector.spans if span.parent_span_id == first.span_id]
    assert [(span.name, read_attributes(span)["wine.model_version"]) for span in inside] == [("predict", "1")]
    parts = [span for span in collector.spans if span.parent_span_id == by_name["POST /predict/batch"].span_id]
    assert [span.name for span in parts] == ["predict", "predict"]  # one on each of its threads


@pytest.mark.usefixtures("collector")  # which skips where the packages are missing
def test_a_collector_that_is_gone_delays_neither_answers_nor_the_end(served: Served) -> None:
    with run_api(served.environment | {ENDPOINT: NOWHERE}) as (address, server):
        start = time.monotonic()
        for _ in range(50):
            WEB.post(f"{address}/predict", json=WINE).raise_for_status()
        assert time.monotonic() - start < 5
        server.terminate()
        server.wait(timeout=8)


NOT_INSTALLED = """
import runpy, sys
sys.modules["opentelemetry.instrumentation.asgi"] = None
sys.argv[0] = "deployment.serve"
runpy.run_module("deployment.serve", run_name="__main__")
"""
LOADED = """
import sys
from deployment.serve import create_worker
create_worker()
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""


def run_script(script: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_without_its_packages_the_server_says_how_to_install_them(served: Served) -> None:
    done = run_script(NOT_INSTALLED, served.environment | {ENDPOINT: NOWHERE, "WINE_PORT": str(free_port())})
    assert_failed_in_one_line(done, 3, ENDPOINT, "pip install opentelemetry-instrumentation-asgi")


def test_an_address_without_a_scheme_is_refused_by_name(served: Served) -> None:
    done = run_script(NOT_INSTALLED, served.environment | {ENDPOINT: "127.0.0.1:4318"})
    assert_failed_in_one_line(done, 2, ENDPOINT, "127.0.0.1:4318")


def test_without_an_endpoint_no_sdk_is_imported(served: Served) -> None:
    assert run_script(LOADED, served.environment | {"WINE_LOG_URL": "off"}).stdout == "[]\n"
