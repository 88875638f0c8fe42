"""POST /predict and POST /predict/batch: from request body to response body.

These routes read the body and write the response themselves: an ordinary FastAPI route handles half as many requests
per second (make bench-serving measures both). app.py describes their request and response for /docs.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs

import numpy as np
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from deployment.api.limits import FROM_LOAD_TEST, PREDICT, PREDICT_BATCH, read_body, unpack_body
from deployment.api.live_model import LiveModel
from deployment.api.metrics import Metrics
from deployment.api.problems import SCOPE_ID, ProblemError, refuse_body, refuse_field
from deployment.api.schemas import Graded, ResponseWriter
from deployment.api.wines import NO_WINE, Fills, Wines, fill_wine, read_csv, read_json
from deployment.prediction_log.log import LoggedAnswer, PredictionLog
from deployment.predictor import NO_MEDIANS
from settings import count_cores
from wine_data.schema import FEATURES, WineQuality, feature_values

if TYPE_CHECKING:  # its packages are optional
    from deployment.api.traces import Traces

JSON, CSV = "application/json", "text/csv"
WINE_BYTES = 16_384  # a wine takes 300
ROW_BYTES = 1_000
MOST_BATCHES = 32  # read or waiting at once; slow batches must not take the places of single wines
CHUNK = 1000  # wines predicted at once
THREADS = min(2, count_cores())  # per chunk; with more, single wines would wait
EXPLAINED_CHUNK = CHUNK // (1 + len(FEATURES))  # an explanation predicts one more wine per feature
PAUSE = 250  # wines written before other requests get a turn


@dataclass(frozen=True)
class Service:
    """The objects and limits that the routes use."""

    live: LiveModel
    metrics: Metrics
    log: PredictionLog | None = None
    batch_rows: int = 5_000
    body_seconds: float = 10.0
    fill_blanks: bool = False
    traces: "Traces | None" = None


@dataclass
class Predict:
    """POST /predict, as an ASGI application."""

    service: Service
    path: ClassVar[str] = PREDICT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request, or refuse it."""
        start = perf_counter()
        request_id, headers = scope[SCOPE_ID], dict(scope["headers"])
        try:
            explain = bool(scope["query_string"]) and read_explain(scope["query_string"])
            body = (await self.answer(request_id, headers, receive, start, explain)).encode()
        except ProblemError as problem:
            if self.service.log and self._is_logged(headers):
                self.service.log.add_refusal(problem.log_entry(self.path, request_id))
            await problem.response(request_id)(scope, receive, send)
            return
        sent = [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": sent})
        await send({"type": "http.response.body", "body": body})

    async def answer(
        self, request_id: str, headers: dict[bytes, bytes], receive: Receive, start: float, explain: bool = False
    ) -> str:
        """The response for one wine as JSON; `start`, from perf_counter, is for the log. Raises ProblemError."""
        require_type(headers, JSON)
        body = await read_body(receive, headers, WINE_BYTES, self.service.body_seconds)
        if b"content-encoding" in headers:
            body = unpack_body(body, headers, WINE_BYTES)
        writer = self._take_writer(explain)
        predictor = writer.predictor
        filled: tuple[str, ...] = ()
        try:
            wine = feature_values(WineQuality.model_validate_json(body))
        except ValidationError as error:
            if not self.service.fill_blanks:
                raise refuse_body(error, NO_WINE) from error
            wine, filled = fill_wine(body, predictor.metadata.fills)
        if predictor.is_compiled:
            row = predictor.predict_one(wine)
        else:  # slow: on a thread, so that it does not block other requests
            row = await asyncio.to_thread(predictor.predict_one, wine)
        (decided,) = writer.decide(np.array([row]))
        graded = writer.write(request_id, wine, decided, filled)
        (explanation,) = await asyncio.to_thread(writer.explain, [graded]) if explain else ("",)
        self._count(writer, graded, start, self._is_logged(headers))
        return f'{{{graded.text}{explanation},"model":{writer.model}}}'

    def _take_writer(self, explain: bool) -> ResponseWriter:
        """The response writer of the serving model. Raises ProblemError if `explain` is set and it cannot explain."""
        writer = self.service.live.writer
        if explain and writer.predictor.medians is None:
            raise ProblemError(409, NO_MEDIANS)
        return writer

    def _count(self, writer: ResponseWriter, graded: Graded, start: float, is_logged: bool) -> None:
        """Count the prediction for one wine, and log it."""
        model = writer.predictor.metadata
        self.service.metrics.count_prediction(graded.grade, model.version)
        if self.service.log and is_logged:
            now, latency = time.time(), (perf_counter() - start) * 1000
            answered = graded.wine, graded.grade, graded.probabilities, graded.expected_quality
            self.service.log.add_answer(
                LoggedAnswer(now, graded.request_id, model.version, model.run_id, *answered, latency)
            )

    def _is_logged(self, headers: dict[bytes, bytes]) -> bool:
        return headers.get(FROM_LOAD_TEST[0]) != FROM_LOAD_TEST[1]


@dataclass
class PredictBatch(Predict):
    """POST /predict/batch: JSON or CSV, all wines or none."""

    path: ClassVar[str] = PREDICT_BATCH
    # One batch at a time, including its body: more at once would only delay each of them, and need more memory.
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    _batches: int = 0

    async def answer(
        self,
        request_id: str,
        headers: dict[bytes, bytes],
        receive: Receive,
        start: float,  # noqa: ARG002  each chunk has its own
        explain: bool = False,
    ) -> str:
        """The response for a batch as JSON. Raises ProblemError."""
        content_type = require_type(headers, JSON, CSV)
        if self._batches >= MOST_BATCHES:
            raise ProblemError(503, "Too many batches at once; try again", headers={"Retry-After": "5"})
        self._batches += 1
        try:
            async with self._turn:
                body = await read_body(receive, headers, self._most_bytes, self.service.body_seconds)
                writer = self._take_writer(explain)
                fills = writer.predictor.metadata.fills if self.service.fill_blanks else {}
                wines = await asyncio.to_thread(self._read, body, headers, content_type, fills)
                logged = self._is_logged(headers)
                answers = [text async for text in self._grade(writer, request_id, wines, logged, explain)]
        finally:
            self._batches -= 1
        return (
            f'{{"request_id":"{request_id}","model":{writer.model},"notes":{json.dumps(wines.notes)},'
            f'"answers":[{",".join(answers)}]}}'
        )

    async def _grade(
        self, writer: ResponseWriter, batch: str, wines: Wines, is_logged: bool, explain: bool
    ) -> AsyncIterator[str]:
        """Yield the JSON for each wine; its latency is its share of the time for its chunk."""
        size = EXPLAINED_CHUNK if explain else CHUNK
        for first in range(0, len(wines.values), size):
            start = perf_counter()
            chunk = wines.values[first : first + size]
            parts = np.array_split(np.array(chunk), min(THREADS, len(chunk)))
            predicted = [asyncio.to_thread(writer.predictor.predict_probabilities, part) for part in parts]
            rows = np.concatenate(await asyncio.gather(*predicted))
            graded = []
            for at, (wine, decided) in enumerate(zip(chunk, writer.decide(rows), strict=True), first):
                if at % PAUSE == 0:
                    await asyncio.sleep(0)
                graded.append(writer.write(f"{batch}-{at + 1}", wine, decided, wines.filled[at]))
            explanations = await asyncio.to_thread(writer.explain, graded) if explain else [""] * len(graded)
            share = (perf_counter() - start) / len(chunk)
            for one, explanation in zip(graded, explanations, strict=True):
                self._count(writer, one, perf_counter() - share, is_logged)
                yield f"{{{one.text}{explanation}}}"

    @property
    def _most_bytes(self) -> int:
        return self.service.batch_rows * ROW_BYTES

    def _read(self, body: bytes, headers: dict[bytes, bytes], content_type: str, fills: Fills) -> Wines:
        read = read_json if content_type == JSON else read_csv
        body, most = unpack_body(body, headers, self._most_bytes), self.service.batch_rows
        try:
            return read(body, most, fills)
        except ProblemError as problem:
            count = body.count(b"{") if content_type == JSON else len(body.splitlines()) - 1
            problem.wines = min(max(count, 1), most)  # an estimate: monitoring counts wines
            raise


def read_explain(query: bytes) -> bool:
    """Whether a query string has explain=true. Raises ProblemError 422 if it is neither true nor false."""
    asked = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("explain", ["false"])
    if not {"true", "false"}.issuperset(asked):
        raise refuse_field("explain", "must be true or false", "The query is not understood")
    return asked[-1] == "true"


def require_type(headers: dict[bytes, bytes], *known: str) -> str:
    """The content type of a body, without parameters. Raises ProblemError 415 for an unknown one."""
    sent = headers.get(b"content-type", b"").decode("latin-1")
    content_type = sent.partition(";")[0].strip().lower()
    if content_type not in known:
        raise ProblemError(415, f"Send the header Content-Type: {' or '.join(known)}")
    return content_type
