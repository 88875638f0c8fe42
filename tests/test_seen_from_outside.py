"""What Prometheus and Grafana see: metrics, alert rules and dashboard, and what a scrape adds."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.prediction_log.findings import ALARM, COVERAGE, DRIFTED_CHECKS, LAST_RUN, write_findings
from settings import ROOT
from tests.conftest import Served, run_api
from tests.processes import run_program
from tests.test_predict import begin_request, read_metric
from tests.test_schema import WINE
from tests.waiting import wait_until
from tests.web import WEB

DASHBOARDS = ROOT / "monitoring" / "report" / "dashboards"
RULES = yaml.safe_load((DASHBOARDS / "alerts.yaml").read_text())["groups"]
DASHBOARD = json.loads((DASHBOARDS / "wine_quality.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here: make system-packages installs it"
)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.full), 2])
def test_a_scrape_names_model_requests_processes_and_what_monitoring_found(served: Served, workers: int) -> None:
    with run_api(served.environment, workers=workers) as (address, server):
        assert read_metric(address, 'wine_model_info{name="wine-quality",version="1"}') == 1
        assert read_metric(address, "process_resident_memory_bytes") > workers * 50e6
        assert read_metric(address, "process_open_fds") > workers
        assert 0 < read_metric(address, "process_start_time_seconds") < 1e10
        assert read_metric(address, "wine_monitoring_alarm") == 0  # there was no run yet
        found = {(ALARM, ""): 1.0, (DRIFTED_CHECKS, ""): 3.0, (LAST_RUN, ""): 1.7e9, (COVERAGE, "0.9"): 0.87}
        write_findings(served.environment["WINE_LOG_URL"], found | {(COVERAGE, "0.8"): 0.7})
        write_findings(served.environment["WINE_LOG_URL"], found)
        assert read_metric(address, "wine_monitoring_alarm ") == 1
        assert read_metric(address, 'wine_monitoring_coverage{level="0.9"}') == 0.87
        assert read_metric(address, 'wine_monitoring_coverage{level="0.8"}') == 0
        assert read_metric(address, "wine_monitoring_last_run_timestamp_seconds ") == 1.7e9
        with begin_request(address), begin_request(address):
            wait_until(lambda: read_metric(address, "wine_requests_in_flight ") == 3, "two requests and the scrape")
        assert server.poll() is None


def list_queries() -> dict[str, str]:
    """Every expression of the alert rules and of the dashboard, by its name."""
    alerts = {rule["alert"]: rule["expr"] for group in RULES for rule in group["rules"]}
    panels = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    }
    return alerts | panels


def list_selectors(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics of an expression, and the labels that it names with each: in braces, or to sum by."""
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", expression))))
    found = re.findall(r"\b((?:wine|process)_\w+|up)\b(?:\{([^}]*)\})?", expression)
    return [(name, grouped | set(re.findall(r"(\w+)\s*[=!]", braces))) for name, braces in found]


def test_every_query_finds_its_metrics_and_labels_on_a_real_server(served: Served) -> None:
    found = {(ALARM, ""): 1.0, (DRIFTED_CHECKS, ""): 3.0, (LAST_RUN, ""): 1.7e9, (COVERAGE, "0.9"): 0.87}
    with run_api(served.environment) as (address, _):
        write_findings(served.environment["WINE_LOG_URL"], found)
        for body in (WINE, {}):
            WEB.post(f"{address}/predict", json=body)
        lines = WEB.get(f"{address}/metrics").raise_for_status().text.splitlines()
    samples = [re.match(r"(\w+)(?:\{(.*)\})? ", line) for line in lines if not line.startswith("#")]
    known = {match[1]: set(re.findall(r'(\w+)="', match[2] or "")) for match in samples if match}
    known["up"] = {"job"}  # Prometheus' own
    selectors = [(query, *each) for query, text in list_queries().items() for each in list_selectors(text)]
    assert len(selectors) >= 20
    assert [each for each in selectors if each[1] not in known or not each[2] <= known[each[1]]] == []


def test_the_legends_name_labels_that_their_queries_keep() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            if " by (" in target["expr"]:
                assert labels <= list_selectors(target["expr"])[0][1], panel["title"]


@pytest.mark.full
@promtool
def test_promtool_takes_the_alert_rules_and_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(list_queries().values())]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    config = COMPOSE["configs"]["prometheus"]["content"].replace("${WINE_METRICS_KEY:-${WINE_API_KEY}}", "a-key")
    (tmp_path / "prometheus.yml").write_text(config.replace("/etc/prometheus/rules", str(DASHBOARDS)))
    rules_of = ["check", "rules", str(DASHBOARDS / "alerts.yaml"), str(tmp_path / "queries.yaml")]
    for arguments in (rules_of, ["check", "config", str(tmp_path / "prometheus.yml")]):
        done = run_program("promtool", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


FIRING = {  # an alert, and what Prometheus reads each minute for an hour and more
    "WineApiDown": {'up{job="wine-api"}': "0x90"},
    "WineServerErrors": {'wine_requests_total{status="200"}': "0+97x90", 'wine_requests_total{status="500"}': "0+3x90"},
    "WinePredictSlow": {
        'wine_request_seconds_bucket{route="/predict",le="0.1"}': "0+90x90",
        'wine_request_seconds_bucket{route="/predict",le="0.25"}': "0+100x90",
        'wine_request_seconds_bucket{route="/predict",le="+Inf"}': "0+100x90",
    },
    "WineModelRefused": {"wine_model_refused": "1x90"},
    "WineLogLosesRows": {"wine_log_lost_rows_total": "0+1x90"},
    "WineDrift": {"wine_monitoring_alarm": "1x90"},
    "WineCoverageLow": {'wine_monitoring_coverage{level="0.9"}': "0.7x90"},
    "WineMonitoringStopped": {"wine_monitoring_last_run_timestamp_seconds": "-7200x90"},
    "WineMonitoringNeverRan": {'up{job="wine-api"}': "1x90"},
}
CALM = {
    'up{job="wine-api"}': "1x90",
    'wine_requests_total{status="200"}': "0+1000x90",
    'wine_requests_total{status="500"}': "0+1x90",
    'wine_request_seconds_bucket{route="/predict",le="0.1"}': "0+1000x90",
    'wine_request_seconds_bucket{route="/predict",le="+Inf"}': "0+1001x90",
    "wine_model_refused": "0x90",
    "wine_log_lost_rows_total": "3x90",
    "wine_monitoring_alarm": "0x90",
    'wine_monitoring_coverage{level="0.9"}': "0.88x90",
    "wine_monitoring_last_run_timestamp_seconds": "0+60x90",
}


@pytest.mark.full
@promtool
def test_each_alert_fires_on_its_trouble_and_on_no_calm_day(tmp_path: Path) -> None:
    assert set(FIRING) == {rule["alert"] for group in RULES for rule in group["rules"]}

    def lay_out(series: dict[str, str], asked: list[str], firing: set[str]) -> dict[str, Any]:
        values = [{"series": name, "values": numbers} for name, numbers in series.items()]
        checks = [f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)' for name in asked]
        expected = [
            {"expr": check, "eval_time": "80m", "exp_samples": [{"labels": "{}", "value": int(name in firing)}]}
            for name, check in zip(asked, checks, strict=True)
        ]
        return {"interval": "1m", "input_series": values, "promql_expr_test": expected}

    tests = [lay_out(series, [name], {name}) for name, series in FIRING.items()] + [lay_out(CALM, list(FIRING), set())]
    file = {"rule_files": [str(DASHBOARDS / "alerts.yaml")], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(file))
    done = run_program("promtool", "test", "rules", str(tmp_path / "tests.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_the_dashboard_and_the_source_of_its_queries() -> None:
    source = yaml.safe_load(COMPOSE["configs"]["datasource"]["content"])["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    (provider,) = yaml.safe_load(COMPOSE["configs"]["dashboards"]["content"])["providers"]
    folder, inside, _ = COMPOSE["services"]["grafana"]["volumes"][0].split(":")
    assert (ROOT / folder, provider["options"]["path"]) == (DASHBOARDS, inside)
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DASHBOARDS / Path(home).name).is_file()
