"""What a stranger may try at the API: floods, bombs, paths, addresses, keys in the open. SECURITY.md lists them."""

import json
import re
import socket
import sqlite3
import time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from commands import BadInputError, NotThereError
from orchestration.tasks.notification import post_webhook
from settings import ROOT
from tests.conftest import Served, run_api
from tests.running import Receiver
from tests.test_schema import WINE
from tests.web import WEB
from tests.wines import NOWHERE
from wine_data.schema import FEATURES
from wine_data.sources.load import load_wines

CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
HEADERS = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 100) for number in range(600))
FLOODS = {
    "many headers": (b"GET /health HTTP/1.1\r\n", HEADERS),
    "a long header": (b"GET /health HTTP/1.1\r\nX: ", b"a" * 65_536),
    "a long path": (b"GET /", b"a" * 65_536),
    "trailers": (CHUNKED + b"0\r\n", HEADERS),
    "an extension of a chunk": (CHUNKED + b"5;", b"a" * 65_536),
}
KEY = "a-key-that-nobody-may-see"


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


@pytest.mark.parametrize("flood", FLOODS)
def test_a_head_without_an_end_loses_its_connection(flood: str, small_api: str) -> None:
    head, more = FLOODS[flood]
    sent = 0
    with connect(small_api) as connection, suppress(ConnectionError):
        connection.sendall(head)
        while sent < 50_000_000:
            connection.sendall(more)
            sent += len(more)
    assert sent < 20_000_000  # what lies in the buffers of two sockets
    assert WEB.get(f"{small_api}/health").is_success


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00 hello\r\n\r\n", b"GET /health HTTP/9.9\r\n\r\n", b"GET\r\n\r\n"]
)
def test_what_is_not_http_gets_a_refusal_with_a_request_id(noise: bytes, small_api: str) -> None:
    with connect(small_api) as connection:
        connection.sendall(noise)
        response = HTTPResponse(connection)
        response.begin()
        problem = json.loads(response.read())
    assert (response.status, response.headers["Content-Type"]) == (400, "application/problem+json")
    assert problem["instance"] == response.headers["X-Request-ID"]
    assert "HTTP/1.1" in problem["title"]


@pytest.mark.full
@pytest.mark.parametrize("begun", [b"", b"GET /health HTTP/1.1\r\nHost: loc"])
def test_a_head_that_never_comes_loses_its_connection(begun: bytes, small_api: str) -> None:
    start = time.monotonic()
    with connect(small_api) as connection:
        connection.sendall(begun)
        assert connection.recv(1) == b""
    assert time.monotonic() - start < 25


@pytest.mark.full
def test_a_connection_that_is_used_again_is_kept(small_api: str) -> None:
    with closing(HTTPConnection(small_api.removeprefix("http://"), timeout=30)) as connection:
        connection.connect()
        first = connection.sock
        for _ in range(4):
            connection.request("GET", "/health")
            assert connection.getresponse().read() == b'{"status":"alive"}'
            time.sleep(6)  # two checks of the head's time, and less than a connection may be idle
        assert connection.sock is first


BOMBS = {
    "lists in lists": b"[" * 8_000 + b"]" * 8_000,
    "objects in objects": b'{"a":' * 2_500 + b"1" + b"}" * 2_500,
    "a list without an end": b"[" * 16_000,
    "a number of 16,000 digits": b'{"density": ' + b"9" * 16_000 + b"}",
    "a whole number of 16,000 digits": b'{"red_wine": 1' + b"0" * 16_000 + b"}",
    "an exponent of 9,999 digits": b'{"density": 1e' + b"9" * 9_999 + b"}",
    "a fraction of 15,000 digits": b'{"density": 0.' + b"1" * 15_000 + b"}",
    "2,000 fields": json.dumps({f"field {number}": number for number in range(700)}).encode(),
    "one field 800 times": b"{" + b'"density":1,' * 800 + b'"density":1}',
    "half of a pair": b'{"\\ud800": 1}',
    "no UTF-8": b'{"\xff\xfe": 1}',
    "a name of 16,000 letters": b'{"' + b"x" * 16_000 + b'": 1}',
    "NUL": b"\x00" * 16_000,
}


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/feedback"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_json_is_refused_at_once(bomb: str, path: str, small_api: str) -> None:
    for body in (BOMBS[bomb], b"[" + BOMBS[bomb] + b"]"):
        start = time.monotonic()
        refusal = WEB.post(f"{small_api}{path}", content=body, headers={"Content-Type": "application/json"})
        assert refusal.status_code in (413, 422), refusal.text[:300]
        assert refusal.headers["content-type"] == "application/problem+json"
        assert len(refusal.content) < 20_000
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e-400", "1" * 300, "-0.0", "1e400", "NaN", "Infinity"])
@pytest.mark.parametrize("field", ["density", "red_wine"])
def test_a_huge_number_is_graded_or_refused(value: str, field: str, small_api: str) -> None:
    body = json.dumps(WINE).replace(f'"{field}": {WINE[field]}', f'"{field}": {value}')
    assert value in body
    answer = WEB.post(f"{small_api}/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 422)
    assert all(0 <= share <= 1 for share in answer.json().get("probabilities", {}).values())


@pytest.mark.parametrize("up", ["..", "%2e%2e", "%2E.", "..%2f..", "..%5c..", "....//", ".%00."])
@pytest.mark.parametrize("folder", ["/", "/static-offline-docs/"])
def test_no_path_leads_to_a_file_outside(up: str, folder: str, small_api: str) -> None:
    for target in ("settings.py", "deployment/serve.py", "etc/passwd"):
        path = f"{folder}{'/'.join([up] * 6)}/{target}"
        with connect(small_api) as connection:  # clients would simplify the path
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert answer.split()[1] in (b"400", b"404"), answer[:300]
        assert b"import" not in answer and b"root:" not in answer


def test_no_address_in_a_body_or_header_is_asked(small_api: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(1)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/secret.csv"
        row = ",".join([address] * len(FEATURES))
        bodies = [
            ("/predict", "application/json", json.dumps(WINE | {"density": address})),
            ("/predict/batch", "application/json", json.dumps([address])),
            ("/predict/batch", "text/csv", address),
            ("/predict/batch", "text/csv", f"{','.join(FEATURES)}\n{row}\n"),
            ("/feedback", "application/json", json.dumps({"request_id": address, "quality": 6})),
        ]
        for path, kind, body in bodies:
            headers = {"Content-Type": kind, "Referer": address, "X-Forwarded-Host": address, "Origin": address}
            assert WEB.post(f"{small_api}{path}", content=body, headers=headers).status_code in (404, 422)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "file", "gopher"])
def test_a_web_address_is_no_source_of_wines(scheme: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        address = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/wines.csv"
        with pytest.raises((BadInputError, NotThereError)):
            load_wines(address, 42, tmp_path, NOWHERE)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_webhook_that_redirects_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, asked = Receiver(), []

    class Redirecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(307)
            self.send_header("Location", inside.address)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Redirecting) as outside:
        thread = Thread(target=outside.handle_request)
        thread.start()
        monkeypatch.setenv("WINE_WEBHOOK", f"http://127.0.0.1:{outside.server_port}/hook")
        post_webhook({"text": "an alarm"})
        thread.join(10)
    assert asked == ["/hook"]
    assert inside.received == []


def test_a_name_that_was_moved_to_this_machine_cannot_send_feedback(small_api: str) -> None:
    headers = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}
    refusal = WEB.post(f"{small_api}/feedback", json={"request_id": "x", "quality": 3}, headers=headers)
    assert refusal.status_code == 421
    assert "WINE_HOSTS" in refusal.json()["title"]


@pytest.mark.full
def test_no_key_is_in_a_process_list_an_answer_a_log_or_the_prediction_log(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = {f"WINE_{name}_KEY": KEY for name in ("API", "PREDICT", "FEEDBACK", "METRICS")}
    with run_api(served.environment | keys, workers=2) as (address, server):
        right, wrong = ({"Authorization": f"Bearer {key}"} for key in (KEY, KEY[:-1]))
        answers = [WEB.post(f"{address}/predict", json=WINE, headers=headers) for headers in (right, wrong)]
        answers += [WEB.post(f"{address}/feedback", json={KEY: KEY}, headers=wrong)]
        answers += [WEB.get(f"{address}{path}", headers=right) for path in ("/metrics", "/openapi.json", "/", "/model")]
        process = psutil.Process(server.pid)
        commands = [each.cmdline() for each in (process, *process.children(recursive=True))]
    assert [answer.status_code for answer in answers[:3]] == [200, 401, 401]
    printed = "".join(capfd.readouterr())
    database = served.environment["WINE_LOG_URL"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(database)) as log:
        rows = "\n".join(log.iterdump())
    texts = [printed, rows, str(commands), *(answer.text + str(answer.headers) for answer in answers)]
    assert [text for text in texts if KEY[:-1] in text] == []


@pytest.mark.fast
def test_every_test_that_security_md_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    files = list((ROOT / "tests").glob("test_*.py"))
    known = {path.stem for path in files} | {
        name for path in files for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 20
    assert named - known == set()
    assert named & {path.stem for path in files} == set()  # a file is no proof: a reader would have to search it


@pytest.mark.fast
def test_no_notebook_holds_a_secret_or_a_path_of_someones_home() -> None:
    notebooks = list(ROOT.glob("*/*.ipynb"))
    assert len(notebooks) >= 5
    secret = re.compile(
        r"/home/\w+|/Users/\w+|/root/|Bearer \w{8}|(?:_KEY|PASSWORD|SECRET|TOKEN)=\w|AKIA\w{16}|-----BEGIN|://[^/\s:\"]+:[^/\s@\"]+@"
    )
    found = {path.name: secret.findall(path.read_text()) for path in notebooks}
    assert {name: texts for name, texts in found.items() if texts} == {}
