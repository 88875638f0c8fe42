"""The guard before all routes: places, keys, slow readers, and the id of each refusal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, cast

import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from commands import BadInputError
from deployment.api import limits
from deployment.api.callers import Callers
from deployment.api.limits import LOGGED_A_MINUTE, Guard
from deployment.api.live_model import LiveModel
from deployment.api.metrics import Metrics
from deployment.api.predict import MOST_BATCHES, PredictBatch, Service
from deployment.prediction_log.log import ID_DIGITS, PredictionLog
from deployment.prediction_log.tables import REFUSALS
from deployment.serve import list_origins
from tests.messages import list_missing
from tests.test_requests import read_rows

SENT: Message = {"type": "http.response.start", "status": 200, "headers": []}
DONE: Message = {"type": "http.response.body", "body": b"x"}


async def answer(_: Scope, __: Receive, send: Send) -> None:
    await send(SENT)
    await send(DONE)


async def ask(guard: ASGIApp, path: str, send: Callable[[Message], Any], server: str = "", **headers: str) -> None:
    named = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": named,
        "server": (server, 80),
    }
    await guard(scope, receive, send)


async def find_status(guard: Guard, path: str, **headers: str) -> tuple[int, dict[bytes, bytes]]:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    await ask(guard, path, send, **headers)
    return messages[0]["status"], dict(messages[0]["headers"])


async def never_read(_: Message) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def slow_readers(guard: Guard, path: str, number: int) -> AsyncIterator[list["asyncio.Task[None]"]]:
    readers = [asyncio.create_task(ask(guard, path, never_read)) for _ in range(number)]
    await asyncio.sleep(0.01)
    yield readers
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


def test_readers_of_open_paths_take_no_place() -> None:
    async def fill() -> int:
        guard = Guard(answer, Metrics(), in_flight=1)
        async with slow_readers(guard, "/", 5), slow_readers(guard, "/static-offline-docs/a.js", 5):
            return (await find_status(guard, "/predict"))[0]

    assert asyncio.run(fill()) == 200


def test_an_answer_that_nobody_reads_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEND_SECONDS", 0.2)

    async def fill() -> list[int]:
        guard = Guard(answer, Metrics(), in_flight=2)
        async with slow_readers(guard, "/predict", 2) as readers:
            full, _ = await find_status(guard, "/predict")
            await asyncio.wait_for(asyncio.gather(*readers), 5)
            return [full, (await find_status(guard, "/predict"))[0]]

    assert asyncio.run(fill()) == [503, 200]


@pytest.mark.parametrize("behind_cors", [False, True])
def test_the_connection_of_a_client_that_reads_nothing_is_closed(
    monkeypatch: pytest.MonkeyPatch, behind_cors: bool
) -> None:
    monkeypatch.setattr(limits, "SEND_SECONDS", 0.05)
    app: ASGIApp = Guard(answer, Metrics(), in_flight=1)
    if behind_cors:
        app = CORSMiddleware(app, allow_origins=["*"])
    cycle = UnreadCycle()
    asyncio.run(ask(app, "/predict", cycle.send, origin="http://a.page"))
    assert (cycle.disconnected, cycle.aborted) == (True, True)


class UnreadCycle:
    """As uvicorn's cycle of a request whose client reads nothing; it is its own transport."""

    disconnected = aborted = False

    @property
    def transport(self) -> Self:
        return self

    def abort(self) -> None:
        self.aborted = True

    async def send(self, message: Message) -> None:  # noqa: ARG002
        await asyncio.sleep(3600)


def test_an_answer_that_is_read_slowly_is_sent_whole() -> None:
    async def read() -> list[Message]:
        messages: list[Message] = []

        async def send(message: Message) -> None:
            await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            messages.append(message)

        await ask(Guard(answer, Metrics(), 1), "/predict", send)
        return messages

    start, body = asyncio.run(read())
    assert (start["status"], body) == (200, DONE)


def test_batches_that_arrive_slowly_leave_places_for_single_wines() -> None:
    async def fill() -> list[int]:
        batches = PredictBatch(Service(live=cast("LiveModel", None), metrics=Metrics(), body_seconds=0.02))
        guard = Guard(batches, Metrics(), in_flight=2 * MOST_BATCHES)
        json_type = {"content-type": "application/json"}
        waiting = [find_status(guard, "/predict/batch", **json_type) for _ in range(2 * MOST_BATCHES)]
        return [status for status, _ in await asyncio.gather(*waiting)]

    assert sorted(asyncio.run(fill())) == [408] * MOST_BATCHES + [503] * MOST_BATCHES


@pytest.mark.parametrize(
    ("sent", "status"),
    [("Bearer key", 200), ("bearer key", 200), ("BEARER  key", 200), ("Basic key", 401), ("key", 401), ("", 401)],
)
def test_the_word_bearer_may_be_written_in_any_case(sent: str, status: int) -> None:
    guard = Guard(answer, Metrics(), in_flight=1, callers=Callers("key"))
    found, headers = asyncio.run(find_status(guard, "/predict", authorization=sent))
    assert found == status
    assert len(headers[b"x-request-id"]) == ID_DIGITS


@pytest.mark.parametrize(
    ("key", "statuses"),  # of /predict, /predict/batch, /model, /feedback, /metrics
    [
        ("every", [200] * 5),
        ("predict", [200, 200, 200, 403, 403]),
        ("feedback", [403, 403, 403, 200, 403]),
        ("metrics", [403, 403, 403, 403, 200]),
        ("wrong", [401] * 5),
        ("", [401] * 5),
    ],
)
def test_each_key_opens_its_own_routes_and_no_other(key: str, statuses: list[int]) -> None:
    guard = Guard(answer, Metrics(), in_flight=1, callers=Callers("every", "predict", "feedback", "metrics"))
    paths = ["/predict", "/predict/batch", "/model", "/feedback", "/metrics"]
    found = [asyncio.run(find_status(guard, path, authorization=f"Bearer {key}"))[0] for path in paths]
    assert found == statuses


def test_one_key_alone_leaves_no_other_route_open() -> None:
    guard = Guard(answer, Metrics(), in_flight=1, callers=Callers(predict="predict"))
    for sent, statuses in (("Bearer predict", [200, 403, 403]), ("", [401] * 3), ("Bearer ", [401] * 3)):
        paths = ("/predict", "/feedback", "/metrics")
        assert [asyncio.run(find_status(guard, path, authorization=sent))[0] for path in paths] == statuses


def test_a_wrong_key_is_compared_with_every_key_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(sent: bytes, known: bytes) -> bool:
        compared.append(known)
        return sent == known

    monkeypatch.setattr("secrets.compare_digest", compare)
    guard = Guard(answer, Metrics(), in_flight=1, callers=Callers("every", "predict", "feedback", "metrics"))
    for key in ("every", "predict", "wrong", "predicT"):
        asyncio.run(find_status(guard, "/predict", authorization=f"Bearer {key}"))
    assert len(compared) == 4 * 4


@pytest.mark.parametrize(
    ("host", "server", "status"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 200),
        ("localhost:8000", "127.0.0.1", 200),
        ("[::1]:8000", "::1", 200),
        ("wine.example", "127.0.0.1", 200),
        ("Wine.Example:8000", "127.0.0.1", 200),
        ("evil.example:8000", "127.0.0.1", 421),
        ("127.0.0.1.evil.example", "127.0.0.1", 421),
        ("localhost.evil.example:8000", "::1", 421),
        ("wine.intern", "172.17.0.2", 200),
    ],
)
def test_a_page_whose_name_was_moved_to_this_machine_is_refused(host: str, server: str, status: int) -> None:
    guard = Guard(answer, Metrics(), in_flight=1, callers=Callers(hosts=frozenset({"wine.example"})))
    assert asyncio.run(find_status(guard, "/feedback", server=server, host=host))[0] == status


def test_a_stranger_who_is_refused_again_and_again_fills_no_disk(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    log = PredictionLog(url, days=1, rows=1_000)
    log.open()
    guard = Guard(answer, Metrics(), in_flight=0, callers=Callers("key"), log=log)

    async def ask_often() -> list[tuple[int, str]]:
        paths = ["/predict", "/model", "/predict/batch"] * LOGGED_A_MINUTE
        asked = [find_status(guard, path) for path in paths]
        asked += [find_status(guard, "/predict", authorization="Bearer key")]
        asked += [find_status(guard, "/predict", **{"x-wine-origin": "load-test"})]
        return [(status, headers[b"x-request-id"].decode()) for status, headers in await asyncio.gather(*asked)]

    answers = asyncio.run(ask_often())
    log.close()
    rows = read_rows(url, REFUSALS)
    assert [row.status for row in rows].count(401) == LOGGED_A_MINUTE
    assert [row.status for row in rows].count(503) == 1
    assert {(row.status, row.request_id) for row in rows} <= set(answers)
    assert {row.route for row in rows} == {"/predict", "/predict/batch"}


def test_a_failure_has_an_id_that_the_servers_log_has_too(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError

    status, headers = asyncio.run(find_status(Guard(fail, Metrics(), 1), "/predict"))
    assert status == 500
    assert headers[b"x-request-id"].decode() in caplog.text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("https://a.example/", "write https://a.example"),
        ("https://b.example,HTTPS://A.Example", "write https://a.example"),
        ("a.example", "write https://a.example"),
        ("https://a.example:443", "write https://a.example"),
        ("http://a.example:8080/form", "write http://a.example:8080"),
        ("http://a.example:port", "https://a.example"),
        ("ftp://a.example", "https://a.example"),
        ("https://*.example", "https://a.example"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_with_the_right_one(text: str, right: str) -> None:
    with pytest.raises(BadInputError) as refusal:
        list_origins(text)
    assert list_missing(str(refusal.value), "WINE_CORS_ORIGINS", text.rpartition(",")[2], right) == []


def test_origins_as_browsers_send_them_are_taken() -> None:
    origins = ["https://a.example", "http://127.0.0.1:3000", "http://[::1]:8080", "*"]
    assert list_origins(", ".join(origins)) == origins
