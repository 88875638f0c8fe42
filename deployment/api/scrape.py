"""Metrics computed at each request to /metrics: the model, the processes, and monitoring's findings."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from deployment.prediction_log.findings import ALARM, COVERAGE, DRIFTED_CHECKS, LAST_RUN, Findings
from wine_data.schema import RATERS
from wine_quality_training.bundle.metadata import ModelMetadata

TEXTS = {
    ALARM: ("wine_monitoring_alarm", "1 while monitoring's last run raises an alarm"),
    DRIFTED_CHECKS: ("wine_monitoring_drifted_checks", "Checks that have drifted in the latest window"),
    COVERAGE: (
        "wine_monitoring_coverage",
        f"Share of grade sets with the {RATERS}' grade in them, latest labelled window",
    ),
    LAST_RUN: ("wine_monitoring_last_run_timestamp_seconds", "When monitoring last ran"),
}


class Scrape(Collector):
    """The gauges of one scrape."""

    def __init__(self, metadata: ModelMetadata, pids: Sequence[int], read: Callable[[], Findings]) -> None:
        """Prepare a scrape: the serving model's metadata, the API's process ids, and a reader of the findings."""
        self._metadata, self._pids, self._read = metadata, pids, read

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; prometheus_client calls this."""
        model = GaugeMetricFamily("wine_model_info", "The model that serves; always 1", labels=["name", "version"])
        model.add_metric([self._metadata.name, self._metadata.version], 1)
        yield model
        found = self._read()
        for name, (full_name, text) in TEXTS.items():
            gauge = GaugeMetricFamily(full_name, text, labels=["level"] if name == COVERAGE else [])
            for (one, level), value in found.items():
                if one == name:
                    gauge.add_metric([level] if name == COVERAGE else [], value)
            yield gauge
        yield from measure_processes(self._pids)


def measure_processes(pids: Sequence[int]) -> Iterator[Metric]:
    """CPU time, memory and open files, summed over processes; start time of the first. Linux only."""
    values: dict[str, list[float]] = defaultdict(list)
    families: dict[str, Metric] = {}
    for pid in pids:
        for family in ProcessCollector(pid=partial(int, pid), registry=CollectorRegistry()).collect():
            families[family.name] = family
            values[family.name].append(family.samples[0].value)
    for name, family in families.items():
        (sample,) = family.samples
        total = min(values[name]) if name == "process_start_time_seconds" else sum(values[name])
        family.samples = [sample._replace(value=total)]
        yield family


def find_pids(folder: str | None) -> list[int]:
    """The ids of the API's live processes, from their files in the metrics folder; without one, this process."""
    if folder is None:
        return [os.getpid()]
    names = {path.stem.rpartition("_")[2] for path in Path(folder).glob("gauge_live*.db")}
    return sorted(int(name) for name in names if name.isdigit())
