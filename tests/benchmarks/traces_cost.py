"""What traces cost: the API with and without an OpenTelemetry collector, asked on one core over 64 connections.

    python -m tests.benchmarks.traces_cost [--rounds N] [--seconds S]

All servers grade one wine a request with the same forest. A collector on the other core takes what they send. Each
round asks every server in turn, so that what the machine does meanwhile falls on all of them.
"""

import statistics
import tempfile
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from commands import run_command
from tests.benchmarks.results import make_row, parse_arguments, publish_result
from wine_data.schema import TARGET, WineQuality, feature_frame

OFF, ALL, SOME = "no traces", "every request traced", "one request in a hundred traced"
SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}


class Collector(BaseHTTPRequestHandler):
    """Takes what is posted, and keeps none of it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def measure(folder: Path, rounds: int, seconds: int) -> list[dict[str, str]]:
    """The rows of the table."""
    from tests.benchmarks.serving_rounds import Target, measure_rounds, run_server, write_script
    from tests.waiting import free_port

    models, wine = make_forest(folder)
    body = write_script(folder, "one", wine.model_dump_json())
    with ExitStack() as stack:
        collector = stack.enter_context(HTTPServer(("127.0.0.1", 0), Collector))
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        stack.callback(collector.shutdown)
        traced, targets = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}, []
        for name, telemetry in ((OFF, {}), (ALL, traced), (SOME, traced | SAMPLED)):
            port = free_port()
            environment = telemetry | {"WINE_PORT": str(port), "WINE_SERVING_MODELS": str(models)}
            environment["WINE_LOG_URL"] = f"sqlite:///{folder}/{name}.db"
            server = run_server(["-m", "deployment.serve"], port, "/health", environment)
            targets.append(Target(name, f"{stack.enter_context(server)}/predict", body))
        measured = measure_rounds(targets, 64, rounds, seconds)
    rows = []
    for name, found in measured.items():
        ratios = [one.rate / off.rate for one, off in zip(found, measured[OFF], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of the rate without"
        rows.append(make_row(name, "", f"{statistics.median(one.rate for one in found):,.0f} a second, {spread}"))
    return rows


def make_forest(folder: Path) -> tuple[Path, WineQuality]:
    """The folder with a bundle of the pipeline's champion on the twin, and a wine to ask for."""
    from tests.wines import load_as_default, make_bundle
    from wine_quality_training.bundle.bundle import select_bundle
    from wine_quality_training.evaluate import LEAK_FREE, Evaluation
    from wine_quality_training.models import make_model

    data = load_as_default("twin")
    wines = data.train.dropna()
    pipeline = make_model("OrdinalForestClassifier", seed=42).fit(feature_frame(wines), wines[TARGET])
    evaluation = Evaluation("OrdinalForestClassifier", LEAK_FREE, pipeline, (), {})
    bundle = make_bundle(folder / "models", evaluation, data, wines)
    select_bundle(bundle)
    return bundle.parent, WineQuality.model_validate(feature_frame(wines).to_dict("records")[0])


def main() -> int:
    """Measure, print and write."""
    arguments = parse_arguments(__doc__, rounds=8, seconds=2)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), arguments.rounds, arguments.seconds)
    return publish_result("traces_cost", "traces_cost", rows)


if __name__ == "__main__":
    run_command(main)
