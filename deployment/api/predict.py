"""POST /predict and POST /predict/batch: from the bytes of a body to the bytes of an answer.

These two read the body and write the answer themselves: FastAPI's way of reading arguments and writing results
takes longer than the model does. What they take and give is described in app.py, for /docs.
"""

import asyncio
import csv
import io
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from time import perf_counter

from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from deployment.api.limits import read_body
from deployment.api.live_model import LiveModel
from deployment.api.metrics import Metrics
from deployment.api.problems import ProblemError, list_refusals, refuse_body
from deployment.api.schemas import Refusal, ResponseWriter
from deployment.prediction_log.log import LoggedAnswer, LoggedRefusal, PredictionLog
from wine_data.schema import WineQuality, feature_array, feature_values

JSON, CSV = "application/json", "text/csv"
WINE_BYTES = 16_384  # a wine takes 300
ROW_BYTES = 1_000
CHUNK = 250  # wines predicted at once; between chunks, requests for single wines are answered


@dataclass(frozen=True)
class Service:
    """What the routes work with."""

    live: LiveModel
    metrics: Metrics
    log: PredictionLog | None = None
    batch_rows: int = 5_000
    body_seconds: float = 10.0


class Predict:
    """POST /predict, as an ASGI application."""

    path = "/predict"

    def __init__(self, service: Service) -> None:
        """Take the service."""
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        start = perf_counter()
        request_id = make_request_id()
        headers = dict(scope["headers"])
        try:
            text = await self.answer(request_id, headers, receive, start)
        except ProblemError as problem:
            self._log_refusal(request_id, problem)
            await problem.response()(scope, receive, send)
            return
        await send_json(send, text.encode())

    async def answer(self, request_id: str, headers: dict[bytes, bytes], receive: Receive, start: float) -> str:
        """The answer to one wine as JSON. Raises ProblemError."""
        require_type(headers, (JSON,))
        body = await read_body(receive, headers, WINE_BYTES, self.service.body_seconds)
        try:
            wine = WineQuality.model_validate_json(body)
        except ValidationError as error:
            raise refuse_body(error) from error
        writer = self.service.live.writer
        predictor, values = writer.predictor, feature_values(wine)
        # Where only the pickle answers, that takes long enough for others to be answered meanwhile.
        row = (
            predictor.predict_one(values)
            if predictor.is_compiled
            else await asyncio.to_thread(predictor.predict_one, values)
        )
        answer = self._grade(writer, request_id, values, row, start)
        return f'{{{answer},"model":{writer.model}}}'

    def _grade(
        self, writer: ResponseWriter, request_id: str, wine: tuple[float, ...], row: list[float], start: float
    ) -> str:
        """Write the answer to one wine, count it and log it."""
        grade, probabilities, expected = writer.grade(row)
        text = writer.write(request_id, grade, probabilities, expected, wine)
        metadata = writer.predictor.metadata
        self.service.metrics.count_prediction(grade, metadata.version)
        if self.service.log:
            latency = (perf_counter() - start) * 1000
            self.service.log.add_answer(
                LoggedAnswer(
                    time.time(),
                    request_id,
                    metadata.version,
                    metadata.run_id,
                    wine,
                    grade,
                    probabilities,
                    expected,
                    latency,
                )
            )
        return text

    def _log_refusal(self, request_id: str, problem: ProblemError) -> None:
        if self.service.log:
            errors = tuple((error.field, error.reason) for error in problem.errors) or (("", problem.title),)
            self.service.log.add_refusal(LoggedRefusal(time.time(), request_id, self.path, problem.status, errors))


class PredictBatch(Predict):
    """POST /predict/batch: JSON or CSV, all of it or nothing."""

    path = "/predict/batch"

    def __init__(self, service: Service) -> None:
        """Take the service."""
        super().__init__(service)
        self._wines = TypeAdapter(list[WineQuality])
        self._turn = asyncio.Semaphore(1)  # one batch at a time: more would only make each of them later

    async def answer(self, request_id: str, headers: dict[bytes, bytes], receive: Receive, start: float) -> str:
        """The answers to a batch as JSON. Raises ProblemError."""
        kind = require_type(headers, (JSON, CSV))
        body = await read_body(receive, headers, self.service.batch_rows * ROW_BYTES, self.service.body_seconds)
        writer = self.service.live.writer
        async with self._turn:
            wines = self._read_csv(body) if kind == CSV else self._read_json(body)
            answers = [text async for text in self._grade_in_chunks(writer, request_id, wines, start)]
        return f'{{"request_id":"{request_id}","model":{writer.model},"answers":[{",".join(answers)}]}}'

    async def _grade_in_chunks(
        self, writer: ResponseWriter, request_id: str, wines: list[WineQuality], start: float
    ) -> AsyncIterator[str]:
        for first in range(0, len(wines), CHUNK):
            chunk = wines[first : first + CHUNK]
            rows = (await asyncio.to_thread(writer.predictor.predict_probabilities, feature_array(chunk))).tolist()
            for number, (wine, row) in enumerate(zip(chunk, rows, strict=True), first + 1):
                values = feature_values(wine)
                yield "{" + self._grade(writer, f"{request_id}-{number}", values, row, start) + "}"

    def _read_json(self, body: bytes) -> list[WineQuality]:
        try:
            wines = self._wines.validate_json(body)
        except ValidationError as error:
            raise refuse_body(error, "The body is not an array of wines") from error
        self._require_count(len(wines))
        return wines

    def _read_csv(self, body: bytes) -> list[WineQuality]:
        try:
            rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ProblemError(422, "The body is not CSV", [Refusal(field="body", reason=str(error))]) from error
        self._require_count(len(rows))
        wines: list[WineQuality] = []
        refusals: list[Refusal] = []
        for number, row in enumerate(rows):
            try:
                wines.append(WineQuality.model_validate_strings(_keep_cells(row)))
            except ValidationError as error:
                refusals += list_refusals(error, number)
        if refusals:
            raise ProblemError(422, "The body is not a table of wines", refusals)
        return wines

    def _require_count(self, rows: int) -> None:
        most = self.service.batch_rows
        if not 1 <= rows <= most:
            reason = f"has {rows:,} wines; send 1 to {most:,}"
            raise ProblemError(422, "The batch has no size that is taken here", [Refusal(field="body", reason=reason)])


class Shortcut:
    """ASGI middleware: answers the routes that predict before FastAPI, whose way to them is longer than theirs."""

    def __init__(self, app: ASGIApp, routes: Sequence[Predict]) -> None:
        """Take the application for all else, and these routes."""
        self._app = app
        self._routes = {route.path: route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a POST to one of the routes; hand on everything else."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (route or self._app)(scope, receive, send)


def make_request_id() -> str:
    """32 hexadecimal digits: the time in milliseconds, then 80 random bits.

    Ids that grow with time cost the log a fifth of what random ones do: its index grows at one end.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def require_type(headers: dict[bytes, bytes], known: tuple[str, ...]) -> str:
    """The content type of a body, without its parameters. Raises ProblemError 415 for one that is not known."""
    sent = headers.get(b"content-type", b"").decode("latin-1")
    kind = sent.partition(";")[0].strip().lower()
    if kind not in known:
        raise ProblemError(415, f"Send the header Content-Type: {' or '.join(known)}")
    return kind


async def send_json(send: Send, body: bytes) -> None:
    """Send an answer, without the response object that this would take on the way."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _keep_cells(row: dict[str, str | list[str]]) -> dict[str, str]:
    """A row as text by column; blank cells are left out, cells beyond the header get a name of their own."""
    cells = {name: cell for name, cell in row.items() if isinstance(cell, str) and cell.strip()}
    return cells | ({"(cells beyond the header)": "x"} if None in row else {})
