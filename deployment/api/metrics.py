"""The metrics at /metrics, in Prometheus' format.

A single process keeps its metrics in memory. For several, serve.py sets PROMETHEUS_MULTIPROC_DIR to a folder before
prometheus_client is imported. Each process then keeps its metrics in files there, and the one that handles the request
adds them up.
"""

import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from deployment.api.scrape import find_pids
from wine_data.schema import ROWS

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
ROUTES = frozenset({"/", "/predict", "/predict/batch", "/feedback", "/model", "/health", "/ready", "/metrics", "/docs"})
OTHER = "other"  # one label for all other paths; a scan of the server would create thousands
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        """Create the metrics, all at zero."""
        self._registry = every = CollectorRegistry()
        # Cached: finding the labels costs more than counting.
        self._requests = cache(
            Counter("wine_requests", "Requests by status", ["route", "status"], registry=every).labels
        )
        seconds = Histogram("wine_request_seconds", "Time to answer", ["route"], registry=every, buckets=SECONDS)
        self._timers = {route: seconds.labels(route) for route in (*ROUTES, OTHER)}
        self._predictions = cache(
            Counter("wine_predictions", f"{ROWS.capitalize()} by grade", ["grade", "version"], registry=every).labels
        )
        self._loads = Counter("wine_model_loads", "Bundles loaded or refused", ["outcome"], registry=every)
        refused = "1 while the bundle that should serve is refused"
        self._refused = Gauge("wine_model_refused", refused, registry=every, multiprocess_mode="livemax")
        self._written = Counter("wine_log_written_rows", "Rows that the prediction log wrote", registry=every)
        self._lost = Counter("wine_log_lost_rows", "Rows that the prediction log lost", registry=every)
        waiting = "Rows that wait for the log's writer"
        self._waiting = Gauge("wine_log_waiting_rows", waiting, registry=every, multiprocess_mode="livesum")
        in_flight = "Guarded requests that are being answered; of other processes, half a second ago"
        self._in_flight = Gauge("wine_requests_in_flight", in_flight, registry=every, multiprocess_mode="livesum")
        # The guard changes this number. A gauge of several processes is a file that each change would write to.
        self.in_flight = 0

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count one response."""
        route = path if path in ROUTES else OTHER
        self._requests(route, status).inc()
        self._timers[route].observe(seconds)

    def count_prediction(self, grade: int, version: str) -> None:
        """Count one prediction."""
        self._predictions(grade, version).inc()

    def count_load(self, refused: bool) -> None:
        """Count a loaded or refused bundle."""
        self._loads.labels("refused" if refused else "loaded").inc()
        self._refused.set(refused)

    def count_log(self, written: int, lost: int, waiting: int) -> None:
        """Count the log's rows written and lost since the last call, and those waiting now."""
        self._written.inc(written)
        self._lost.inc(lost)
        self._waiting.set(waiting)

    def show_in_flight(self) -> None:
        """Publish the number of requests in flight to the other processes."""
        self._in_flight.set(self.in_flight)

    def render(self, describe: Callable[[Sequence[int]], Collector]) -> bytes:
        """All metrics, over all processes, in Prometheus' format; `describe` receives the process ids."""
        folder = os.environ.get(FOLDER)
        self.show_in_flight()
        counted, found = self._registry, CollectorRegistry()
        if folder is not None:
            _forget_dead(Path(folder))
            counted = CollectorRegistry()
            MultiProcessCollector(counted)
        found.register(describe(find_pids(folder)))
        return generate_latest(counted) + generate_latest(found)


def _forget_dead(folder: Path) -> None:
    """Remove the gauges of dead processes; their counters stay."""
    for path in folder.glob("gauge_live*.db"):
        number = re.search(r"_(\d+)\.db$", path.name)
        if number and not Path(f"/proc/{number[1]}").exists() and Path("/proc/self").exists():
            mark_process_dead(int(number[1]), str(folder))
