"""The API as its users meet it: a real server process, and a real browser for /docs."""

import json
import math
import shutil
import socket
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from deployment.api.schemas import Prediction
from tests.conftest import PipelineRun, isolated_environment, needs_browser
from tests.messages import assert_failed, list_missing
from tests.processes import run_module
from tests.test_schema import WINE
from tests.visits import visit_page
from tests.waiting import free_port
from tests.web import WEB
from wine_quality_training.bundle.bundle import load_current

WRONG = [
    ("density", -1),
    *(("alcohol", value) for value in (math.nan, math.inf, "strong", None, "8.8", True, [8.8])),
    *(("red_wine", value) for value in (0.5, True)),
    ("taste", 9),
]


def test_root_says_hello_and_where_to_go(api: str) -> None:
    greeting = WEB.get(api).raise_for_status().json()
    assert greeting["predict"] == "POST /predict"
    assert greeting["try it"] == "/docs"
    assert greeting["model"] == "wine-quality version 1"


def test_an_answer_has_every_part(api: str, pipeline_run: PipelineRun) -> None:
    answer = WEB.post(f"{api}/predict", json=WINE).raise_for_status().json()
    metadata = load_current(pipeline_run.serving_models).metadata
    decided = {"prediction", "likeliest", "probabilities", "expected_quality", "grade_sets"}
    assert set(answer) == {"request_id", *decided, "model", "warnings"}
    assert Prediction.model_validate(answer).model_dump(exclude_unset=True) == answer
    assert str(answer["likeliest"]) == max(answer["probabilities"], key=answer["probabilities"].get)
    assert str(answer["prediction"]) in answer["probabilities"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["model"] == {"name": "wine-quality", "version": "1", "run_id": metadata.run_id}
    assert answer["warnings"] == []


def test_a_wine_unlike_any_seen_is_answered_with_a_warning(api: str) -> None:
    answer = WEB.post(f"{api}/predict", json=WINE | {"residual_sugar": 250}).raise_for_status().json()
    assert len(answer["warnings"]) == 1
    assert list_missing(answer["warnings"][0], "residual_sugar", "250") == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        *((json.dumps(WINE | {field: value}), field) for field, value in WRONG),
        (json.dumps(WINE)[:-1] + ', "pH": 1e999}', "pH"),
        (json.dumps({name: value for name, value in WINE.items() if name != "pH"}), "pH"),
        ("[]", "body"),
        ("", "body"),
        ("{", "body"),
        ("hello", "body"),
        ("\xff\xfe".encode("latin-1"), "body"),
        ("[" * 5000, "body"),
        ('{"a":' * 2000, "body"),
    ],
)
def test_a_bad_body_gets_422_with_its_field_named(api: str, body: str | bytes, field: str) -> None:
    refusal = WEB.post(f"{api}/predict", content=body, headers={"Content-Type": "application/json"})
    assert refusal.status_code == 422
    assert refusal.headers["content-type"] == "application/problem+json"
    problem = refusal.json()
    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["errors"][0]["reason"]


def test_the_refusal_of_a_body_without_content_type_names_the_header(api: str) -> None:
    refusal = WEB.post(f"{api}/predict", content=json.dumps(WINE))
    assert refusal.status_code == 415
    assert "Content-Type: application/json" in refusal.json()["detail"]


def test_the_description_names_every_field_with_its_unit(api: str) -> None:
    schema = WEB.get(f"{api}/openapi.json").json()["components"]["schemas"]["WineQuality"]
    assert list(schema["properties"]) == list(WINE)
    assert all("description" in field for field in schema["properties"].values())


def test_a_body_of_many_unknown_fields_gets_a_short_answer(api: str) -> None:
    body = json.dumps({f"f{number}": 0 for number in range(1000)})
    refusal = WEB.post(f"{api}/predict", content=body, headers={"Content-Type": "application/json"})
    assert refusal.status_code == 422
    assert len(refusal.json()["errors"]) == 20
    assert "more" in refusal.json()["detail"]
    assert len(refusal.content) < 5_000


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/predict", 405)])
def test_an_unknown_route_or_method_gets_a_problem(api: str, method: str, path: str, status: int) -> None:
    answer = WEB.request(method, f"{api}{path}")
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/model", "/metrics", "/docs", "/openapi.json"])
def test_head_answers_as_get_without_a_body(api: str, path: str) -> None:
    head = WEB.head(f"{api}{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == WEB.get(f"{api}{path}").headers["content-type"]
    assert WEB.head(f"{api}/predict").status_code == 405


def test_the_model_that_serves_is_described(api: str, pipeline_run: PipelineRun) -> None:
    metadata = load_current(pipeline_run.serving_models).metadata
    card = WEB.get(f"{api}/model").raise_for_status().json()
    assert (card["version"], card["model"], card["metrics"]) == (metadata.version, metadata.model, metadata.metrics)
    assert card["compiled"].startswith("compiled: ")
    assert list_missing(card["compiled"], "106,505 rows") == []
    assert WEB.get(f"{api}/health").json() == {"status": "alive"}
    assert WEB.get(f"{api}/ready").json() == {"ready": True, "version": "1", "refused": ""}


@needs_browser
def test_docs_answers_a_wine_with_no_internet(api: str, browser: Browser) -> None:
    with visit_page(browser, f"{api}/docs") as visit:
        visit.page.get_by_text("/predict", exact=True).click()
        visit.page.get_by_role("button", name="Try it out").click()
        visit.page.get_by_role("button", name="Execute").click()
        answer = visit.page.locator(".live-responses-table .response-col_description pre").first
        expect(answer).to_contain_text('"prediction":')
        assert [url for url in visit.asked_of_servers if not url.startswith(api)] == []


def test_without_a_model_serve_says_run_make_pipeline_and_exits_3(tmp_path: Path) -> None:
    assert_failed(run_module("deployment.serve", isolated_environment(tmp_path)), 3, "make pipeline")


def test_with_the_port_taken_serve_says_so_and_exits_3(pipeline_run: PipelineRun) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        done = run_module("deployment.serve", pipeline_run.environment | {"WINE_PORT": str(port)})
    assert_failed(done, 3, f"127.0.0.1:{port}", "WINE_PORT")


def test_a_damaged_bundle_is_refused_with_exit_2(pipeline_run: PipelineRun, tmp_path: Path) -> None:
    shutil.copytree(pipeline_run.serving_models, tmp_path / "deployment" / "models")
    model = tmp_path / "deployment" / "models" / "1" / "model.pkl"
    model.write_bytes(model.read_bytes()[:-1])
    assert_failed(run_module("deployment.serve", isolated_environment(tmp_path)), 2, "model.pkl", "SHA-256")
