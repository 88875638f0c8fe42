"""The API: one wine in, its predicted grade out.

create_app assembles the routes. predict.py handles /predict and /predict/batch: it reads the body and writes the
response itself. This file only describes these two routes for /docs.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from commands import NotThereError
from deployment.api.callers import NO_KEYS, Callers
from deployment.api.limits import Guard, find_path, make_request_id, read_body, unpack_body
from deployment.api.page import find_policy, render_page
from deployment.api.predict import CSV, JSON, WINE_BYTES, Predict, PredictBatch, Service, require_type
from deployment.api.problems import PROBLEM_JSON, REQUEST_ID, ProblemError, answer_error, refuse_body
from deployment.api.schemas import BatchPrediction, Feedback, ModelCard, Prediction, Problem, Readiness
from deployment.api.scrape import Scrape
from deployment.api.wines import NO_WINE, NO_WINES
from deployment.prediction_log.log import LogCounts, RepeatedFeedbackError, UnknownRequestError
from wine_data.schema import EXAMPLE, FEATURES, GRADES, MEASUREMENTS, PURPOSE, RATERS, ROW, ROWS, TITLE, WineQuality
from wine_quality_training.bundle.decision import describe_decision
from wine_quality_training.bundle.grade_sets import GUARANTEE

logger = logging.getLogger("uvicorn.error")
REPORT_SECONDS = 0.5
NO_COUNTS = LogCounts(0, 0, 0, "")
Explain = Annotated[bool, Query(description="also return how much each feature adds; takes a few times as long")]
FEEDBACK_THREADS = 2  # a separate pool: a slow log delays no prediction
TAGS = [
    {"name": "predictions", "description": f"Ask for grades, and send those that {RATERS} gave"},
    {"name": "model", "description": "What serves, and since when"},
    {"name": "server", "description": "For visitors, and for those who monitor the server"},
]


def create_app(
    service: Service, in_flight: int = 256, callers: Callers = NO_KEYS, cors_origins: Sequence[str] = ()
) -> ASGIApp:
    """Create the API for a service: FastAPI, and in front of it the guard and the prediction routes.

    The API responds 503 above `in_flight` concurrent requests. `cors_origins` are other web origins allowed to call it.
    """
    app = FastAPIOffline(
        redoc_url=None,
        title=TITLE,
        description=f"{PURPOSE} Grades are {GRADES[0]} to {GRADES[-1]}; there are {len(MEASUREMENTS)} measurements.",
        version="1",
        openapi_tags=TAGS,
        lifespan=lambda _: _run_tasks(service),
        exception_handlers=dict.fromkeys((ProblemError, HTTPException, Exception), answer_error),
    )
    _add_greeting(app, service, needs_key=callers.need_key)
    _describe_predictions(app, service)
    _add_feedback(app, service)
    _add_state(app, service)
    _complete_description(app, needs_key=callers.need_key)
    fast = {route.path: route for route in (Predict(service), PredictBatch(service))}

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method")  # lifespan events have none
        route = fast.get(find_path(scope)) if method == "POST" else None
        if method == "HEAD":  # uvicorn sends no body for HEAD
            scope = {**scope, "method": "GET"}
        await (route or app)(scope, receive, send)

    traced = service.traces.trace_requests(dispatch) if service.traces else dispatch
    guarded = Guard(traced, service.metrics, in_flight, callers, service.log)
    if not cors_origins:
        return guarded
    return _OtherPages(
        guarded, allow_origins=cors_origins, allow_methods=["*"], allow_headers=["*"], expose_headers=[REQUEST_ID]
    )


class _OtherPages(CORSMiddleware):
    """CORS middleware in front of the guard; its preflight responses have a request id too."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        response.headers[REQUEST_ID] = make_request_id()
        return response


def _add_greeting(app: FastAPI, service: Service, needs_key: bool) -> None:
    @app.get("/", response_class=JSONResponse, tags=["server"], summary="Where to go; in a browser, a form")
    async def greet(request: Request) -> Response:
        model = service.live.writer.predictor.metadata
        if "text/html" in request.headers.get("accept", ""):
            page = render_page(model.name, model.version, needs_key)
            return HTMLResponse(page, headers={"Vary": "Accept", "Content-Security-Policy": find_policy(page)})
        greeting = {
            "message": f"Hello. This is the {TITLE.lower()} API.",
            "predict": "POST /predict",
            f"many {ROWS}": "POST /predict/batch",
            "try it": "/docs",
            "model": f"{model.name} version {model.version}",
        }
        return JSONResponse(greeting, headers={"Vary": "Accept"})


def _describe_predictions(app: FastAPI, service: Service) -> None:
    """Describe the two prediction routes; predict.py handles their requests, so these functions are never called."""
    unable: dict[int | str, dict[str, Any]] = {
        409: {"model": Problem, "description": "The model has no medians to explain its answers with"}
    }

    @app.post(
        "/predict",
        responses=_refusals(NO_WINE) | unable,
        tags=["predictions"],
        summary=f"Grade one {ROW}",
    )
    async def predict(wine: WineQuality, explain: Explain = False) -> Prediction:
        raise NotImplementedError

    @app.post(
        "/predict/batch",
        responses=_refusals(NO_WINES) | unable,
        tags=["predictions"],
        summary=f"Grade many {ROWS}, all or none",
        description=f"A JSON array of {ROWS}, or CSV with the field names as its header.\n\nCSV may use any usual "
        f"separator, decimal sign, encoding and spelling of the names, as files of {ROWS} may.",
        openapi_extra={"requestBody": _describe_batch(service.batch_rows)},
    )
    async def predict_batch(explain: Explain = False) -> BatchPrediction:
        raise NotImplementedError


def _add_feedback(app: FastAPI, service: Service) -> None:
    refusals = _refusals("The body is no feedback") | {
        404: {"model": Problem, "description": "No answer has this request id, or it was deleted since"},
        409: {"model": Problem, "description": "This answer has a grade already"},
    }

    threads = ThreadPoolExecutor(FEEDBACK_THREADS, "feedback")

    @app.post(
        "/feedback",
        responses=refusals,
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": Feedback.model_json_schema()}}}},
        tags=["predictions"],
        summary=f"Send the grade that {RATERS} gave to a {ROW} predicted before",
    )
    async def give_feedback(request: Request) -> Feedback:
        headers = dict(request.scope["headers"])
        require_type(headers, JSON)
        content = await read_body(request.receive, headers, WINE_BYTES, service.body_seconds)
        content = unpack_body(content, headers, WINE_BYTES)
        try:
            feedback = Feedback.model_validate_json(content)
        except ValidationError as error:
            raise refuse_body(error, "The body is no feedback") from error
        if service.log is None:
            raise ProblemError(503, "The prediction log is off here, so no grade can be kept")
        try:
            await service.log.add_feedback(feedback.request_id, feedback.quality, threads)
        except UnknownRequestError as error:
            raise ProblemError(404, str(error)) from error
        except RepeatedFeedbackError as error:
            raise ProblemError(409, "This answer has a grade already") from error
        except NotThereError as error:
            reason = "The log cannot be written now; try again"
            raise ProblemError(503, reason, headers={"Retry-After": "5"}) from error
        return feedback


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/model", tags=["model"], summary="What is known of the model that serves")
    async def describe_model() -> ModelCard:
        predictor = service.live.writer.predictor
        loaded = service.live.loaded.isoformat(timespec="seconds")
        decision = describe_decision(predictor.metadata.decision)
        known = vars(predictor.metadata) | {"grades": predictor.grades, "loaded": loaded, "decision": decision}
        known["guarantee"] = GUARANTEE if predictor.metadata.grade_sets else ""
        return ModelCard.model_validate(known)

    @app.get("/ready", tags=["model"], summary="Whether a checked model is loaded")
    async def check_ready() -> Readiness:
        version = service.live.writer.predictor.metadata.version
        return Readiness(version=version, refused=service.live.refused)

    @app.get("/health", tags=["server"], summary="Whether this process answers")
    async def check_health() -> dict[Literal["status"], Literal["alive"]]:
        return {"status": "alive"}

    @app.get(
        "/metrics", response_class=Response, tags=["server"], summary="Counters for Prometheus, over all processes"
    )
    async def show_metrics() -> Response:
        metadata = service.live.writer.predictor.metadata
        read = service.log.read_findings if service.log else dict
        describe = partial(Scrape, metadata, read=read)
        return Response(await asyncio.to_thread(service.metrics.render, describe), media_type=CONTENT_TYPE_LATEST)


@asynccontextmanager
async def _run_tasks(service: Service) -> AsyncIterator[None]:
    """Watch the model and report the log's counts while the server runs."""
    tasks = [asyncio.create_task(service.live.watch()), asyncio.create_task(_report_counts(service))]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if service.log:
        await asyncio.to_thread(service.log.close)
    if service.traces:
        await asyncio.to_thread(service.traces.close)


async def _report_counts(service: Service) -> None:
    """Copy the log's counts and the requests in flight into the metrics until cancelled; errors do not stop it."""
    written = lost = 0
    while True:
        counts = service.log.counts if service.log else NO_COUNTS
        try:
            service.metrics.show_in_flight()
            service.metrics.count_log(counts.written - written, counts.lost - lost, counts.waiting)
            written, lost = counts.written, counts.lost
        except Exception:
            logger.exception("The counts did not reach the metrics")
        await asyncio.sleep(REPORT_SECONDS)


def _refusals(unprocessable: str) -> dict[int | str, dict[str, Any]]:
    texts = {
        401: "The key is missing or wrong",
        403: "The key is for other routes",
        408: "The body did not arrive in time",
        413: "The body is too large",
        421: "The host name of the request is not allowed",
        415: "The body is of another type",
        422: unprocessable,
        503: "Too many requests at once",
    }
    return {status: {"model": Problem, "description": text} for status, text in texts.items()}


def _describe_batch(rows: int) -> dict[str, Any]:
    item = {"$ref": f"#/components/schemas/{WineQuality.__name__}"}
    array = {"type": "array", "items": item, "minItems": 1, "maxItems": rows}
    table = ",".join(FEATURES) + "\n" + ",".join(str(EXAMPLE[name]) for name in FEATURES) + "\n"
    content = {
        JSON: {"schema": array, "example": [EXAMPLE]},
        CSV: {"schema": {"type": "string"}, "example": table},
    }
    return {"required": True, "content": content}


def _complete_description(app: FastAPI, needs_key: bool) -> None:
    """Complete the OpenAPI schema: media type of refusals, request ids, and the key if one is required."""
    schema = app.openapi()  # FastAPI caches it and serves it at /openapi.json
    for operation in [operation for path in schema["paths"].values() for operation in path.values()]:
        for response in operation["responses"].values():
            response["headers"] = {REQUEST_ID: {"description": "the id of the request", "schema": {"type": "string"}}}
            content = response.get("content", {})
            if content.get(JSON, {}).get("schema", {}).get("$ref", "").endswith("/Problem"):
                content[PROBLEM_JSON] = content.pop(JSON)
    if needs_key:
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
