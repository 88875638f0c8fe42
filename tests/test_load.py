"""The load test against a real server process, against one that answers wrongly, and against none."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import ClassVar

import pandas as pd
import pytest
from playwright.sync_api import Browser
from pydantic import ValidationError

from deployment.load import find_address, make_folder
from deployment.load_test.questions import SPOILERS, Question, find_fault, read_rows, spoil_wine
from settings import ROOT
from tests.conftest import NOWHERE, isolated_environment, needs_browser
from tests.messages import assert_failed_in_one_line, find_lines, list_missing
from tests.processes import run_module
from tests.test_schema import WINE
from tests.waiting import free_port, wait_for, wait_until
from wine_data.schema import WineQuality

GRADED = {"prediction": 6, "likeliest": 6, "probabilities": {"5": 0.4, "6": 0.6}}
REFUSED = {"errors": [{"field": "density", "reason": "too heavy"}]}
PROBLEM = "application/problem+json"


def set_environment(folder: Path, address: str) -> dict[str, str]:
    """Settings to load the API of an address, with reports under the folder."""
    return isolated_environment(folder) | {"WINE_DATA": "twin", "WINE_PORT": address.rpartition(":")[2]}


def run_load(folder: Path, address: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run_module("deployment.load", set_environment(folder, address) | settings, *arguments)


def start_load(folder: Path, address: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deployment.load", *arguments]
    environment, pipe = set_environment(folder, address), subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


class AlwaysFine(BaseHTTPRequestHandler):
    """Answers 200 and {} to every request."""

    protocol_version = "HTTP/1.1"
    keys: ClassVar[set[str]] = set()  # that came with wines
    origins: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        if self.command == "POST":
            self.keys.add(self.headers["Authorization"])
            self.origins.add(self.headers["X-Wine-Origin"])
            self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def wrong_server() -> Iterator[str]:
    """The address of a server that answers wrongly."""
    AlwaysFine.keys.clear()
    AlwaysFine.origins.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), AlwaysFine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_api_passes_and_leaves_its_reports(small_api: str, tmp_path: Path) -> None:
    done = run_load(tmp_path, small_api, "--users", "5", "--seconds", "6", WINE_LOAD_P95="5000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every answer was correct" in done.stdout
    [folder] = (tmp_path / "load_reports").iterdir()
    assert f"Report: {folder / 'report.html'}" in done.stdout
    assert "</html>" in (folder / "report.html").read_text()
    assert (folder / "load_stats.csv").read_text().startswith("Type,Name,Request Count")
    measured = pd.read_json(folder / "load.json").set_index("name")
    assert set(measured.index) == {"/", "/predict, a wine"} | {f"/predict, {kind}" for kind in SPOILERS}
    assert measured["num_failures"].sum() == 0
    shares = measured["num_requests"] / measured["num_requests"].sum()
    assert shares["/predict, a wine"] == pytest.approx(2 / 6, abs=0.15)
    assert shares["/"] == pytest.approx(1 / 6, abs=0.15)


@pytest.mark.full
def test_a_target_that_cannot_be_met_is_a_finding(small_api: str, tmp_path: Path) -> None:
    done = run_load(tmp_path, small_api, "--seconds", "3", WINE_LOAD_P95="0.001", WINE_LOAD_USERS="2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert find_lines(done.stdout, "p95", "0.001", "WINE_LOAD_P95")
    [folder] = (tmp_path / "load_reports").iterdir()
    assert pd.read_json(folder / "load.json")["num_failures"].sum() == 0
    assert (folder / "report.html").is_file()


@pytest.mark.full
def test_ctrl_c_ends_it_early_with_what_was_measured(small_api: str, tmp_path: Path) -> None:
    process = start_load(tmp_path, small_api, "--seconds", "600")
    try:
        log = wait_until(lambda: find_log(tmp_path, "All users spawned"), "all users at work", seconds=60)
        assert log is not None
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, output + errors
    assert "POST /predict, a wine" in output
    assert log.with_name("report.html").is_file()
    assert "Traceback" not in errors


def find_log(folder: Path, text: str) -> Path | None:
    """The log of locust that has this text."""
    return next((log for log in folder.glob("load_reports/*/locust.log") if text in log.read_text()), None)


def test_a_server_that_answers_wrongly_is_a_finding_with_examples(wrong_server: str, tmp_path: Path) -> None:
    settings = {"WINE_LOAD_P95": "60000", "WINE_API_KEY": "a-key"}
    done = run_load(tmp_path, wrong_server, "--seconds", "4", "--users", "4", **settings)
    assert done.returncode == 1, done.stdout + done.stderr
    for facts in ((" /: ", "predict"), ("/predict, a wine", "3", "9"), ("/predict, NaN", "200", "422")):
        assert find_lines(done.stdout, *facts), facts
    assert '{"fixed_acidity": ' in done.stdout  # what was asked
    assert "{}" in done.stdout  # what was answered
    assert "WINE_LOAD_P95" not in done.stdout
    assert AlwaysFine.keys == {"Bearer a-key"}
    assert AlwaysFine.origins == {"load-test"}


def test_where_nothing_listens_it_says_make_serve_and_exits_3(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    assert_failed_in_one_line(run_load(tmp_path, address), 3, address, "make serve", "WINE_PORT")
    assert not (tmp_path / "load_reports").exists()


def test_bad_wines_end_it_with_2_and_one_line(wrong_server: str, tmp_path: Path) -> None:
    for name in ("train_wine_data.csv", "test_wine_data.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    done = run_load(tmp_path, wrong_server, "--seconds", "3", WINE_DATA=str(tmp_path))
    assert_failed_in_one_line(done, 2, "train_wine_data.csv")


@pytest.mark.parametrize("arguments", [("--users", "0"), ("--seconds", "-1"), ("--rate", "many")])
def test_an_option_out_of_range_is_refused(tmp_path: Path, arguments: tuple[str, str]) -> None:
    done = run_load(tmp_path, NOWHERE.rstrip("/"), *arguments)
    assert done.returncode == 2
    assert f"argument {arguments[0]}" in done.stderr


@pytest.mark.full
@needs_browser
def test_locusts_page_has_the_settings_in_it(browser: Browser, wrong_server: str, tmp_path: Path) -> None:
    port = free_port()
    process = start_load(tmp_path, wrong_server, "--ui", str(port), "--users", "7")
    try:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        wait_for(f"http://127.0.0.1:{port}/", process)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        assert page.get_by_label("Number of users").input_value() == "7"
        assert page.get_by_label("Host").input_value() == wrong_server
        page.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    return read_rows("twin", tmp_path_factory.mktemp("downloads"), seed=42)


@pytest.mark.parametrize("kind", SPOILERS)
def test_every_spoiled_wine_is_refused_at_the_field_that_was_spoiled(rows: list[dict[str, float]], kind: str) -> None:
    for seed in range(30):
        spoiled = spoil_wine(rows[seed], kind, Random(seed))
        with pytest.raises(ValidationError) as refusal:
            WineQuality.model_validate_json(spoiled.body)
        named = {".".join(map(str, problem["loc"])) or "body" for problem in refusal.value.errors()}
        assert named == {spoiled.field}


def test_rows_come_from_the_twin_where_a_folder_holds_none(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    assert read_rows(str(tmp_path), tmp_path, seed=42) == rows
    header = ";".join(name.replace("_", " ") for name in [*WINE][:-1]) + ";quality\n"
    values = ";".join(map(str, [*WINE.values()][:-1]))
    for colour in ("red", "white"):
        (tmp_path / f"winequality-{colour}.csv").write_text(header + f"{values};6\n" * 3)
    read = read_rows(str(tmp_path), tmp_path / "nowhere", seed=42)
    assert {wine["red_wine"] for wine in read} == {0, 1}
    assert all(wine | {"red_wine": 0} == WINE for wine in read)
    assert read_rows("uci", tmp_path, seed=42) == read


@pytest.mark.parametrize(
    ("field", "status", "content_type", "answer", "facts"),
    [
        (None, 200, "application/json", GRADED, None),
        (None, 200, "text/html", "<html>", ()),
        (None, 503, PROBLEM, {}, ("503", "200")),
        (None, 200, "application/json", GRADED | {"prediction": 11}, ("prediction", "3", "9")),
        (None, 200, "application/json", GRADED | {"prediction": 9}, ("prediction", "probability")),
        (None, 200, "application/json", GRADED | {"likeliest": 5}, ("likeliest", "highest")),
        (None, 200, "application/json", GRADED | {"probabilities": {"6": 0.6}}, ("probabilities", "1")),
        (None, 200, "application/json", GRADED | {"probabilities": [1]}, ("probabilities", "numbers")),
        ("density", 422, PROBLEM, REFUSED, None),
        ("density", 422, f"{PROBLEM}; charset=utf-8", REFUSED, None),
        ("density", 400, PROBLEM, REFUSED, ("400", "422")),
        ("density", 422, "application/json", REFUSED, ("application/json", PROBLEM)),
        ("alcohol", 422, PROBLEM, REFUSED, ("field",)),
        ("density", 422, PROBLEM, {"errors": ["density"]}, ("field",)),
    ],
)
def test_an_answer_is_judged(
    field: str | None, status: int, content_type: str, answer: object, facts: tuple[str, ...] | None
) -> None:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    fault = find_fault(Question("any", "{}", field), status, content_type, text)
    assert (fault is None) == (facts is None)
    assert list_missing(fault or "", *(facts or ())) == []


def test_an_answer_that_is_no_json_is_a_fault() -> None:
    assert find_fault(Question("any", "{}", None), 200, "text/html", "<html>") is not None


def test_no_run_writes_into_the_folder_of_another(tmp_path: Path) -> None:
    folders = {make_folder(tmp_path) for _ in range(3)}
    assert len(folders) == 3


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "http://127.0.0.1:80"), ("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80")],
)
def test_an_api_that_listens_everywhere_is_asked_here(host: str, address: str) -> None:
    assert find_address(host, 80) == address
