"""POST /predict and POST /predict/batch: from the bytes of a body to the bytes of an answer.

These two read the body and write the answer themselves: an ordinary FastAPI route halves the requests answered in
a second (make bench-serving measures both). What they take and give is described in app.py, for /docs.
"""

import asyncio
import csv
import io
import os
import time
from dataclasses import dataclass, field
from time import perf_counter
from typing import ClassVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.types import Receive, Scope, Send

from deployment.api.limits import read_body
from deployment.api.live_model import LiveModel
from deployment.api.metrics import Metrics
from deployment.api.problems import ProblemError, refuse_body
from deployment.api.schemas import Refusal, ResponseWriter
from deployment.prediction_log.log import LoggedAnswer, LoggedRefusal, PredictionLog
from wine_data.schema import WineQuality, feature_array, feature_values

JSON, CSV = "application/json", "text/csv"
WINES = TypeAdapter(list[WineQuality])
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


@dataclass
class Predict:
    """POST /predict, as an ASGI application."""

    service: Service
    path: ClassVar[str] = "/predict"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        start = perf_counter()
        request_id = make_request_id()
        try:
            body = (await self.answer(request_id, dict(scope["headers"]), receive, start)).encode()
        except ProblemError as problem:
            self._log_refusal(request_id, problem)
            await problem.response()(scope, receive, send)
            return
        headers = [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def answer(self, request_id: str, headers: dict[bytes, bytes], receive: Receive, start: float) -> str:
        """The answer to one wine as JSON; `start` is perf_counter's, for the log. Raises ProblemError."""
        require_type(headers, JSON)
        body = await read_body(receive, headers, WINE_BYTES, self.service.body_seconds)
        try:
            wine = feature_values(WineQuality.model_validate_json(body))
        except ValidationError as error:
            raise refuse_body(error, "The body is not a wine") from error
        writer = self.service.live.writer
        predictor = writer.predictor
        if predictor.is_compiled:
            row = predictor.predict_one(wine)
        else:  # so slow that other requests are answered meanwhile
            row = await asyncio.to_thread(predictor.predict_one, wine)
        return f'{{{self._grade(writer, request_id, wine, row, start)},"model":{writer.model}}}'

    def _grade(
        self, writer: ResponseWriter, request_id: str, wine: tuple[float, ...], row: list[float], start: float
    ) -> str:
        """Write the answer to one wine, count it and log it."""
        text, grade, probabilities, expected = writer.write(request_id, wine, row)
        model = writer.predictor.metadata
        self.service.metrics.count_prediction(grade, model.version)
        if self.service.log:
            now, latency = time.time(), (perf_counter() - start) * 1000
            self.service.log.add_answer(
                LoggedAnswer(
                    now, request_id, model.version, model.run_id, wine, grade, probabilities, expected, latency
                )
            )
        return text

    def _log_refusal(self, request_id: str, problem: ProblemError) -> None:
        if self.service.log:
            errors = tuple((error.field, error.reason) for error in problem.errors) or (("", problem.title),)
            refusal = LoggedRefusal(time.time(), request_id, self.path, problem.status, errors, problem.wines)
            self.service.log.add_refusal(refusal)


@dataclass
class PredictBatch(Predict):
    """POST /predict/batch: JSON or CSV, all of it or nothing."""

    path: ClassVar[str] = "/predict/batch"
    # One batch at a time: more would only make each of them later.
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    async def answer(self, request_id: str, headers: dict[bytes, bytes], receive: Receive, start: float) -> str:
        """The answers to a batch as JSON. Raises ProblemError."""
        content_type = require_type(headers, JSON, CSV)
        body = await read_body(receive, headers, self.service.batch_rows * ROW_BYTES, self.service.body_seconds)
        writer = self.service.live.writer
        answers: list[str] = []
        async with self._turn:
            wines = self._read_wines(body, content_type)
            for first in range(0, len(wines), CHUNK):
                chunk = wines[first : first + CHUNK]
                rows = await asyncio.to_thread(writer.predictor.predict_probabilities, feature_array(chunk))
                for number, (wine, row) in enumerate(zip(chunk, rows.tolist(), strict=True), first + 1):
                    text = self._grade(writer, f"{request_id}-{number}", feature_values(wine), row, start)
                    answers.append(f"{{{text}}}")
        return f'{{"request_id":"{request_id}","model":{writer.model},"answers":[{",".join(answers)}]}}'

    def _read_wines(self, body: bytes, content_type: str) -> list[WineQuality]:
        most, rows = self.service.batch_rows, None if content_type == JSON else _read_csv(body)
        try:
            wines = WINES.validate_json(body) if rows is None else WINES.validate_python(rows)
        except ValidationError as error:
            problem = refuse_body(error, "The body is not an array or a table of wines")
            problem.wines = min(_count_wines(body) if rows is None else len(rows), most)
            raise problem from error
        if not 1 <= len(wines) <= most:
            reason = f"has {len(wines):,} wines; send 1 to {most:,}"
            problem = ProblemError(422, "The batch is empty or too large", [Refusal(field="body", reason=reason)])
            problem.wines = min(max(len(wines), 1), most)
            raise problem
        return wines


def make_request_id() -> str:
    """32 hexadecimal digits: the time in milliseconds, then 80 random bits.

    Ids that grow with time cost the log a fifth of what random ones do: its index grows at one end.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def require_type(headers: dict[bytes, bytes], *known: str) -> str:
    """The content type of a body, without its parameters. Raises ProblemError 415 for one that is not known."""
    sent = headers.get(b"content-type", b"").decode("latin-1")
    content_type = sent.partition(";")[0].strip().lower()
    if content_type not in known:
        raise ProblemError(415, f"Send the header Content-Type: {' or '.join(known)}")
    return content_type


def _count_wines(body: bytes) -> int:
    """How many wines a JSON array has; 1 for anything else, which is one mistake."""
    try:
        wines = from_json(body)
    except ValueError:
        return 1
    return len(wines) if isinstance(wines, list) else 1


def _read_csv(body: bytes) -> list[dict[str, object]]:
    """The rows of a table, with numbers where cells are numbers and without the blank cells."""
    try:
        text = io.StringIO(body.decode("utf-8-sig"), newline="")
        rows = list(csv.DictReader(text, restkey="(cells beyond the header)", restval="", strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ProblemError(422, "The body is not CSV", [Refusal(field="body", reason=str(error))]) from error
    return [{name: _read_cell(cell) for name, cell in row.items() if str(cell).strip()} for row in rows]


def _read_cell(cell: str | list[str]) -> object:
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return cell
