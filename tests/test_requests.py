"""What a request may be and what is kept of it: ids, the log, blanks, gzip, and bodies that would stop a server."""

import gzip
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from deployment.prediction_log.tables import PREDICTIONS, REFUSALS
from tests.conftest import Served, run_api
from tests.messages import list_missing
from tests.test_predict import CSV, read_metric, write_csv
from tests.test_schema import WINE
from tests.waiting import wait_until
from tests.web import WEB
from wine_quality_training.bundle.bundle import METADATA_FILE, select_bundle


def read_rows(url: str, table: sa.Table) -> list[Any]:
    """The rows of a table of a log that no server writes any longer."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        return list(connection.execute(sa.select(table)))


def test_every_answer_and_refusal_has_an_id_which_the_log_has_too(served: Served) -> None:
    bodies = [("/predict", WINE), ("/predict", {}), ("/predict/batch", [WINE]), ("/predict/batch", [{}])]
    with run_api(served.environment) as (address, _):
        answers = [WEB.post(f"{address}{path}", json=body) for path, body in bodies]
    single, refused, batch, refused_batch = (answer.headers["x-request-id"] for answer in answers)
    assert answers[0].json()["request_id"] == single
    assert answers[2].json()["request_id"] == batch
    url = served.environment["WINE_LOG_URL"]
    assert {row.request_id for row in read_rows(url, PREDICTIONS)} == {single, f"{batch}-1"}
    assert {row.request_id for row in read_rows(url, REFUSALS)} == {refused, refused_batch}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", path, 200) for path in ("/", "/health", "/ready", "/docs", "/openapi.json", "/model", "/metrics")),
        ("HEAD", "/health", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/predict", 405),
        ("POST", "/feedback", 415),
        ("POST", "/predict", 415),
    ],
)
def test_every_route_answers_with_an_id_which_a_refusal_has_too(
    small_api: str, method: str, path: str, status: int
) -> None:
    answer = WEB.request(method, f"{small_api}{path}")
    assert (answer.status_code, len(answer.headers.get_list("x-request-id"))) == (status, 1)
    assert status == 200 or answer.json()["instance"] == answer.headers["x-request-id"]


def test_a_load_tests_wines_are_answered_and_not_logged(served: Served) -> None:
    headers = {"X-Wine-Origin": "load-test"}
    with run_api(served.environment) as (address, _):
        for path, wines in (("/predict", WINE), ("/predict/batch", [WINE])):
            WEB.post(f"{address}{path}", json=wines, headers=headers).raise_for_status()
            assert WEB.post(f"{address}{path}", json=[], headers=headers).status_code == 422
        assert read_metric(address, "wine_predictions_total") == 2
    url = served.environment["WINE_LOG_URL"]
    assert read_rows(url, PREDICTIONS) + read_rows(url, REFUSALS) == []


def test_the_latency_of_a_batchs_wine_is_its_share(served: Served) -> None:
    with run_api(served.environment) as (address, _):
        start = time.perf_counter()
        WEB.post(f"{address}/predict/batch", json=[WINE] * 2_000, timeout=60).raise_for_status()
        milliseconds = (time.perf_counter() - start) * 1000
    rows = read_rows(served.environment["WINE_LOG_URL"], PREDICTIONS)
    assert len(rows) == 2_000
    assert 0 < sum(row.latency_ms for row in rows) < milliseconds


def test_blanks_are_filled_where_the_setting_allows_it_and_said(served: Served) -> None:
    wine = WINE | {"pH": None}
    table = write_csv(WINE | {"pH": ""})
    with run_api(served.environment, fill_blanks="true") as (address, _):
        single = WEB.post(f"{address}/predict", json=wine).raise_for_status().json()
        by_json = WEB.post(f"{address}/predict/batch", json=[wine]).raise_for_status().json()["answers"]
        by_csv = WEB.post(f"{address}/predict/batch", content=table, headers=CSV).raise_for_status().json()["answers"]
        for answer in (single, *by_json, *by_csv):
            assert list_missing("; ".join(answer["warnings"]), "pH is blank", "mean") == []
        metadata = json.loads((served.models / "1" / METADATA_FILE).read_text())
        shutil.copytree(served.models / "1", served.models / "4")
        (served.models / "4" / METADATA_FILE).write_text(json.dumps(metadata | {"version": "4", "fills": {}}))
        select_bundle(served.models / "4")
        wait_until(lambda: WEB.get(f"{address}/ready").json()["version"] == "4", "the bundle without means")
        assert WEB.post(f"{address}/predict", json=wine).json()["errors"][0]["field"] == "pH"


def test_a_packed_body_is_read(small_api: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    for path, body in (("/predict", WINE), ("/predict/batch", [WINE])):
        WEB.post(
            f"{small_api}{path}", content=gzip.compress(json.dumps(body).encode()), headers=headers
        ).raise_for_status()
    refusal = WEB.post(f"{small_api}/predict", content=b"x", headers=headers | {"Content-Encoding": "br"})
    assert (refusal.status_code, list_missing(refusal.json()["title"], "br", "gzip")) == (415, [])


def test_more_free_than_total_sulfur_dioxide_is_warned_of(small_api: str) -> None:
    wine = WINE | {"free_sulfur_dioxide": 60, "total_sulfur_dioxide": 50}
    [warning] = WEB.post(f"{small_api}/predict", json=wine).raise_for_status().json()["warnings"]
    assert list_missing(warning, "free_sulfur_dioxide", "60", "total_sulfur_dioxide", "50") == []


def test_feedback_on_ids_that_nobody_knows_delays_no_batch(served: Served) -> None:
    unknown = {"request_id": "unknown", "quality": 7}
    with run_api(served.environment) as (address, _), ThreadPoolExecutor(60) as pool:
        start = time.perf_counter()
        asked = [pool.submit(WEB.post, f"{address}/feedback", json=unknown, timeout=60) for _ in range(60)]
        WEB.post(f"{address}/predict/batch", json=[WINE]).raise_for_status()
        assert {one.result().status_code for one in asked} == {404}
        assert time.perf_counter() - start < 4  # one after another in the threads that all routes share: 5 s and more


def test_single_wines_are_answered_while_what_is_no_batch_is_read(served: Served) -> None:
    slowest = 0.0
    body = b"[" + b"[]," * 1_600_000 + b"[]]"
    with run_api(served.environment) as (address, _), ThreadPoolExecutor(1) as pool, httpx.Client() as client:
        client.post(f"{address}/predict", json=WINE)
        headers = {"Content-Type": "application/json"}
        refusing = pool.submit(WEB.post, f"{address}/predict/batch", content=body, headers=headers, timeout=60)
        while not refusing.done():
            start = time.perf_counter()
            client.post(f"{address}/predict", json=WINE).raise_for_status()
            slowest = max(slowest, time.perf_counter() - start)
        assert refusing.result().status_code == 422
    assert slowest < 1
