"""Batches, feedback and limits, on real server processes around small forests."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from deployment.api.schemas import BatchPrediction
from deployment.prediction_log.reader import read_answers, read_refusals
from settings import ROOT
from tests.conftest import Served, run_api
from tests.messages import assert_failed
from tests.processes import run_module
from tests.test_schema import WINE
from tests.waiting import free_port, wait_for, wait_until
from tests.web import WEB
from wine_data.schema import FEATURES
from wine_quality_training.bundle.bundle import NOT_COMPILED

CSV = {"Content-Type": "text/csv"}


def write_csv(*rows: Mapping[str, object]) -> str:
    lines = [",".join(FEATURES), *(",".join(str(row[name]) for name in FEATURES) for row in rows)]
    return "\n".join(lines) + "\n"


def test_a_batch_is_answered_as_its_wines_are_one_by_one(small_api: str) -> None:
    wines = [WINE | {"alcohol": 8 + number / 5} for number in range(30)]
    batch = WEB.post(f"{small_api}/predict/batch", json=wines).raise_for_status().json()
    assert BatchPrediction.model_validate(batch).model_dump(exclude_unset=True) == batch
    ones = [WEB.post(f"{small_api}/predict", json=wine).json() for wine in wines]
    assert [answer["request_id"] for answer in batch["answers"]] == [
        f"{batch['request_id']}-{row}" for row in range(1, 31)
    ]
    for answer, one in zip(batch["answers"], ones, strict=True):
        assert (answer["prediction"], answer["probabilities"]) == (one["prediction"], one["probabilities"])


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "with BOM"])
def test_a_csv_is_answered_as_the_same_wines_in_json(small_api: str, start: str) -> None:
    wines = [WINE, WINE | {"alcohol": 12.5, "red_wine": 1}]
    by_json = WEB.post(f"{small_api}/predict/batch", json=wines).json()
    body = (start + write_csv(*wines)).encode()
    by_csv = WEB.post(f"{small_api}/predict/batch", content=body, headers=CSV).raise_for_status().json()
    assert [one["probabilities"] for one in by_csv["answers"]] == [one["probabilities"] for one in by_json["answers"]]


@pytest.mark.parametrize(
    ("body", "headers", "fields"),
    [
        (json.dumps([WINE, WINE | {"density": 7}]), {}, ["2.density"]),
        (json.dumps([WINE, 5]), {}, ["2"]),
        (json.dumps(WINE), {}, ["body"]),
        ("[]", {}, ["body"]),
        (json.dumps([WINE] * 41), {}, ["body"]),
        (write_csv(WINE, WINE | {"density": "x"}), CSV, ["2.density"]),
        (write_csv(WINE | {"alcohol": "nan"}), CSV, ["1.alcohol"]),
        (write_csv(WINE | {"alcohol": ""}), CSV, ["1.alcohol"]),
        (write_csv(*[WINE] * 41), CSV, ["body"]),
        (",".join(FEATURES), CSV, ["body"]),
        ("", CSV, ["body"]),
        (write_csv(WINE, WINE).strip() + ",9\n", CSV, ["2"]),
        (write_csv(*[WINE] * 3).replace("density", "weight"), CSV, ["header"]),
        (b"\xff\xfe", CSV, ["header"]),
    ],
)
def test_a_batch_with_one_bad_wine_is_refused_by_row_and_field(
    small_api: str, body: str | bytes, headers: dict[str, str], fields: list[str]
) -> None:
    sent = {"Content-Type": "application/json"} | headers
    refusal = WEB.post(f"{small_api}/predict/batch", content=body, headers=sent)
    assert refusal.status_code == 422, refusal.text
    assert refusal.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in refusal.json()["errors"]] == fields


def test_feedback_is_kept_once_for_an_answer_that_was_given(small_api: str) -> None:
    single = WEB.post(f"{small_api}/predict", json=WINE).json()["request_id"]
    of_a_batch = WEB.post(f"{small_api}/predict/batch", json=[WINE, WINE]).json()["answers"][1]["request_id"]
    for request_id in (single, of_a_batch):
        feedback = {"request_id": request_id, "quality": 7}
        assert WEB.post(f"{small_api}/feedback", json=feedback).json() == feedback
        assert WEB.post(f"{small_api}/feedback", json=feedback).status_code == 409
    assert WEB.post(f"{small_api}/feedback", json={"request_id": "unknown", "quality": 7}).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"request_id": "x"}, "quality"),
        ({"request_id": "x", "quality": 11}, "quality"),
        ({"request_id": "x", "quality": "7"}, "quality"),
        ({"request_id": "", "quality": 7}, "request_id"),
    ],
)
def test_bad_feedback_is_refused_by_field(small_api: str, body: dict[str, object], field: str) -> None:
    refusal = WEB.post(f"{small_api}/feedback", json=body)
    assert (refusal.status_code, refusal.json()["errors"][0]["field"]) == (422, field)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/feedback"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_a_body_that_is_too_large_is_refused_without_being_read(small_api: str, path: str, chunked: bool) -> None:
    body = b" " * 2_000_000
    content = iter([body[first : first + 50_000] for first in range(0, len(body), 50_000)]) if chunked else body
    try:
        refusal = WEB.post(f"{small_api}{path}", content=content, headers={"Content-Type": "application/json"})
    except httpx.TransportError:  # the server closed the connection while we were still sending: a refusal, too
        assert WEB.get(f"{small_api}/health").status_code == 200
        return
    assert refusal.status_code == 413
    assert refusal.json()["status"] == 413


def begin_request(address: str) -> socket.socket:
    """Send the head of a request and the first byte of its body, and no more."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    connection.sendall(head.encode() + b"{")
    return connection


def test_a_body_that_does_not_arrive_is_given_up_on(served: Served) -> None:
    with run_api(served.environment, body_seconds=0.5) as (address, _), begin_request(address) as slow:
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")


def test_more_requests_than_allowed_are_refused_until_there_is_room(served: Served) -> None:
    with run_api(served.environment, in_flight=2, body_seconds=5) as (address, _):
        with begin_request(address), begin_request(address):
            refusal = wait_until(lambda: ask_when_full(address), "a refusal for want of room")
            assert refusal is not None
            assert refusal.headers["retry-after"] == "1"
            assert WEB.get(f"{address}/health").status_code == 200
        wait_until(lambda: WEB.post(f"{address}/predict", json=WINE).is_success, "an answer again", seconds=3)


def ask_when_full(address: str) -> httpx.Response | None:
    """The refusal of a server that has no room; nothing while it still answers."""
    answer = WEB.post(f"{address}/predict", json=WINE)
    return answer if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else None


def test_with_a_key_only_its_holders_are_answered(served: Served) -> None:
    page = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    with run_api(served.environment, cors_origins="https://a.example", api_key="secret") as (address, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            refusal = WEB.post(f"{address}/predict", json=WINE, headers=headers)
            assert (refusal.status_code, refusal.headers["www-authenticate"]) == (401, "Bearer")
        assert WEB.get(f"{address}/metrics").status_code == 401
        assert WEB.get(f"{address}/health").status_code == 200
        assert WEB.post(f"{address}/predict", json=WINE, headers={"Authorization": "Bearer secret"}).is_success
        assert "bearer" in str(WEB.get(f"{address}/openapi.json").json()["components"]["securitySchemes"])
        allowed = WEB.options(f"{address}/predict", headers=page)  # which browsers send without the key
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"


def test_behind_a_proxy_that_cuts_a_prefix_off_routes_keys_and_docs_work(served: Served) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    uvicorn = ["uvicorn", "--factory", "deployment.serve:create_worker", "--root-path", "/wine", "--port", str(port)]
    command = [sys.executable, "-m", *uvicorn]
    with subprocess.Popen(command, cwd=ROOT, env=served.environment | {"WINE_API_KEY": "secret"}) as server:
        try:
            wait_for(f"{address}/ready", server)
            headers = {"Authorization": "Bearer secret"}
            assert WEB.post(f"{address}/predict", json=WINE).status_code == 401
            assert WEB.post(f"{address}/predict", json=WINE, headers=headers).status_code == 200
            assert WEB.post(f"{address}/predict/batch", json=[WINE], headers=headers).status_code == 200
            parts = re.findall(r"['\"]/wine(/[^'\"]+)", WEB.get(f"{address}/docs").raise_for_status().text)
            assert len(parts) >= 3  # the description, a script and a style sheet
            for path in parts:
                WEB.get(f"{address}{path}").raise_for_status()
            description = WEB.get(f"{address}/openapi.json").json()
            assert description["servers"] == [{"url": "/wine"}]
            assert {"/predict", "/predict/batch"} <= set(description["paths"])
            metrics = WEB.get(f"{address}/metrics", headers=headers).text
            assert 'wine_requests_total{route="/predict/batch",status="200"} 1.0' in metrics
        finally:
            server.terminate()


def test_other_web_pages_may_not_call_by_default(small_api: str) -> None:
    page = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in WEB.options(f"{small_api}/predict", headers=page).headers


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.full), 2])
def test_a_server_that_is_stopped_has_logged_every_answer_and_the_wines_of_refused_batches(
    served: Served, workers: int
) -> None:
    bad = WINE | {"chlorides": 77.0}
    with run_api(served.environment, workers=workers) as (address, _):
        ids = [WEB.post(f"{address}/predict", json=WINE).json()["request_id"] for _ in range(30)]
        assert WEB.post(f"{address}/predict/batch", json=[WINE, *[bad] * 29]).status_code == 422
        assert WEB.post(f"{address}/predict/batch", content=write_csv(bad, WINE), headers=CSV).status_code == 422
        assert WEB.post(f"{address}/predict", json=bad).status_code == 422
    assert sorted(read_answers(served.environment["WINE_LOG_URL"])["request_id"]) == sorted(ids)
    refusals = read_refusals(served.environment["WINE_LOG_URL"])
    assert sorted(refusals.groupby("request_id")["wines"].max()) == [1, 2, 30]


def test_a_log_that_cannot_be_written_ends_the_command_in_one_line(served: Served) -> None:
    settings = {"WINE_LOG_URL": "sqlite:////proc/none/predictions.db", "WINE_WORKERS": "2"}
    assert_failed(run_module("deployment.serve", served.environment | settings), 3, "WINE_LOG_URL")


def test_without_a_log_wines_are_graded_and_feedback_is_not_kept(served: Served) -> None:
    with run_api(served.environment, log_url="off") as (address, _):
        request_id = WEB.post(f"{address}/predict", json=WINE).raise_for_status().json()["request_id"]
        refusal = WEB.post(f"{address}/feedback", json={"request_id": request_id, "quality": 7})
        assert refusal.status_code == 503


def test_a_model_without_compiled_form_answers_with_its_pickle(served: Served) -> None:
    (served.models / "current").write_text("3\n")
    with run_api(served.environment) as (address, _):
        assert WEB.post(f"{address}/predict", json=WINE).json()["model"]["version"] == "3"
        assert WEB.get(f"{address}/model").json()["compiled"] == NOT_COMPILED.proof
        (answer,) = WEB.post(f"{address}/predict/batch", json=[WINE]).raise_for_status().json()["answers"]
        assert answer["prediction"] in range(3, 10)


def read_metric(address: str, start: str) -> float:
    lines = WEB.get(f"{address}/metrics").raise_for_status().text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.full), 2])
def test_metrics_count_every_answer_of_every_process(served: Served, workers: int) -> None:
    with run_api(served.environment, workers=workers) as (address, _):
        with ThreadPoolExecutor(8) as pool:  # a connection a request: both processes get some
            list(pool.map(lambda _: WEB.post(f"{address}/predict", json=WINE).raise_for_status(), range(60)))
        assert WEB.post(f"{address}/predict", json={}).status_code == 422
        assert read_metric(address, 'wine_requests_total{route="/predict",status="200"}') == 60
        assert read_metric(address, 'wine_requests_total{route="/predict",status="422"}') == 1
        assert read_metric(address, "wine_predictions_total") == 60
        assert read_metric(address, 'wine_request_seconds_count{route="/predict"}') == 61
        wait_until(lambda: read_metric(address, "wine_log_written_rows_total") == 61, "61 rows in the log")
        assert read_metric(address, "wine_log_lost_rows_total") == 0


@pytest.mark.parametrize("query", ["", "?explain=true"], ids=["plain", "explained"])
def test_single_wines_are_answered_while_a_large_batch_is_graded(served: Served, query: str) -> None:
    batch = [WINE | {"alcohol": 8 + number / 1000} for number in range(5000)]
    answered = 0
    with run_api(served.environment) as (address, _), ThreadPoolExecutor(1) as pool, httpx.Client() as client:
        client.post(f"{address}/predict", json=WINE)
        grading = pool.submit(WEB.post, f"{address}/predict/batch{query}", json=batch, timeout=60)
        while not grading.done():
            client.post(f"{address}/predict", json=WINE).raise_for_status()
            answered += 1
        grading.result().raise_for_status()
    assert answered >= 3


def attack_routes(address: str, cases: int, seconds: float) -> str:
    """Send at most so many random requests to each route of an API with schemathesis; return its report."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    limits = ["--phases", "examples,coverage,fuzzing", "--max-examples", str(cases), "--generation-deterministic"]
    arguments = ["run", f"{address}/openapi.json", "--checks", checks, *limits]
    done = run_module("schemathesis.cli", os.environ, *arguments, seconds=seconds)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    return done.stdout


@pytest.mark.full
def test_every_request_gets_an_answer_that_the_description_knows(small_api: str) -> None:
    assert "No issues found" in attack_routes(small_api, 30, seconds=300)
