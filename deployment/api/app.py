"""The API: one wine in, its grade out.

create_app puts the routes together. /predict and /predict/batch are answered by predict.py, which reads the
body and writes the answer itself; here they are described, so that /docs knows them.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp

from commands import NotThereError
from deployment.api.limits import Guard, read_body
from deployment.api.page import find_policy, render_page
from deployment.api.predict import CSV, JSON, WINE_BYTES, Predict, PredictBatch, Service, Shortcut, require_type
from deployment.api.problems import (
    PROBLEM_JSON,
    ProblemError,
    answer_failure,
    answer_http_error,
    answer_problem,
    refuse_body,
)
from deployment.api.schemas import (
    BatchPrediction,
    Feedback,
    FeedbackAccepted,
    ModelCard,
    Prediction,
    Problem,
    Readiness,
)
from deployment.prediction_log.log import RepeatedFeedbackError, UnknownRequestError
from wine_data.schema import EXAMPLE, FEATURES, GRADES, MEASUREMENTS, WineQuality

REPORT_SECONDS = 0.5
PREDICTIONS, MODEL, SERVER = "predictions", "model", "server"
TAGS = [
    {"name": PREDICTIONS, "description": "Ask for grades, and send those that tasters gave"},
    {"name": MODEL, "description": "What serves, and since when"},
    {"name": SERVER, "description": "For people who come by, and for those who watch it"},
]
# What /model says of a model, by the names in its metadata.
KNOWN = ("name", "version", "run_id", "model", "compiled", "protocol", "metrics", "data_source", "data_fingerprint")


def create_app(service: Service, in_flight: int = 256, api_key: str = "", cors_origins: Sequence[str] = ()) -> ASGIApp:
    """Make the API around its service: FastAPI, and before it the guard and the routes that predict.

    Args:
        service: the model that serves, the metrics, the log.
        in_flight: requests worked on at once; one more is answered 503.
        api_key: asked for in the header Authorization, as `Bearer KEY`; empty: none is.
        cors_origins: web pages of others that may call the API.
    """
    app = FastAPIOffline(
        redoc_url=None,
        title="Wine quality",
        description=f"Predicts the grade of a wine, {GRADES[0]} to {GRADES[-1]}, from {len(MEASUREMENTS)} laboratory "
        "measurements and its colour.",
        version="1",
        openapi_tags=TAGS,
        lifespan=lambda _: _follow(service),
        exception_handlers={
            ProblemError: answer_problem,
            HTTPException: answer_http_error,
            Exception: answer_failure,
        },
    )
    _add_greeting(app, service, needs_key=bool(api_key))
    _describe_predictions(app, service)
    _add_feedback(app, service)
    _add_model(app, service)
    _add_health(app, service)
    app.openapi = lambda: _describe(app, needs_key=bool(api_key))  # type: ignore[method-assign]
    fast = Shortcut(app, [Predict(service), PredictBatch(service)])
    guarded = Guard(fast, service.metrics, in_flight, api_key)
    if not cors_origins:
        return guarded
    return CORSMiddleware(guarded, allow_origins=cors_origins, allow_methods=["*"], allow_headers=["*"])


def _add_greeting(app: FastAPI, service: Service, needs_key: bool) -> None:
    @lru_cache(maxsize=1)
    def lay_out(name: str, version: str) -> tuple[str, str]:
        page = render_page(name, version, needs_key)
        return page, find_policy(page)

    @app.get("/", response_class=JSONResponse, tags=[SERVER], summary="Say hello; to a browser, show a form")
    async def greet(request: Request) -> Response:
        """Say hello and where to go; to a browser, show a form."""
        predictor = service.live.predictor
        name, version = (predictor.metadata.name, predictor.metadata.version) if predictor else ("no model", "")
        if "text/html" in request.headers.get("accept", ""):
            page, policy = lay_out(name, version)
            return HTMLResponse(page, headers={"Vary": "Accept", "Content-Security-Policy": policy})
        greeting = {
            "message": "Hello. This is the wine quality API.",
            "predict": "POST /predict",
            "many wines": "POST /predict/batch",
            "try it": "/docs",
            "model": f"{name} version {version}",
        }
        return JSONResponse(greeting, headers={"Vary": "Accept"})


def _describe_predictions(app: FastAPI, service: Service) -> None:
    """Describe the two routes that predict; Shortcut answers them, so these are never called."""

    @app.post("/predict", responses=_refusals("The body is not a wine"), tags=[PREDICTIONS], summary="Grade one wine")
    async def predict(wine: WineQuality) -> Prediction:
        """Grade one wine."""
        raise NotImplementedError

    @app.post(
        "/predict/batch",
        responses=_refusals("The body is not an array or a table of wines"),
        tags=[PREDICTIONS],
        summary="Grade many wines, all or none",
        openapi_extra={"requestBody": _describe_batch(service.batch_rows)},
    )
    async def predict_batch() -> BatchPrediction:
        """Grade many wines, all or none: a JSON array, or CSV with the fields of a wine as its header."""
        raise NotImplementedError


def _add_feedback(app: FastAPI, service: Service) -> None:
    body = {"required": True, "content": {JSON: {"schema": Feedback.model_json_schema()}}}
    refusals = _refusals("The body is no feedback") | {
        404: {"model": Problem, "description": "No answer has this request id"},
        409: {"model": Problem, "description": "This answer has a feedback already"},
    }

    @app.post(
        "/feedback",
        responses=refusals,
        openapi_extra={"requestBody": body},
        tags=[PREDICTIONS],
        summary="Tell the grade that tasters gave",
    )
    async def give_feedback(request: Request) -> FeedbackAccepted:
        """Say which grade tasters gave to a wine that was predicted before."""
        headers = dict(request.scope["headers"])
        require_type(headers, (JSON,))
        content = await read_body(request.receive, headers, WINE_BYTES, service.body_seconds)
        try:
            feedback = Feedback.model_validate_json(content)
        except ValidationError as error:
            raise refuse_body(error, "The body is no feedback") from error
        if service.log is None:
            raise ProblemError(503, "The prediction log is off here, so no feedback is kept")
        try:
            await asyncio.to_thread(service.log.add_feedback, feedback.request_id, feedback.quality)
        except UnknownRequestError as error:
            raise ProblemError(
                404, "No answer in the log has this request id; wines of a batch have ids of their own"
            ) from error
        except RepeatedFeedbackError as error:
            raise ProblemError(409, "This answer has a feedback already") from error
        except NotThereError as error:
            raise ProblemError(
                503, "The log cannot be written now; come again", headers={"Retry-After": "5"}
            ) from error
        return FeedbackAccepted(request_id=feedback.request_id, quality=feedback.quality)


def _add_model(app: FastAPI, service: Service) -> None:
    @app.get(
        "/model",
        responses={503: {"model": Problem, "description": "No model is loaded"}},
        tags=[MODEL],
        summary="What is known of the model that serves",
    )
    async def describe_model() -> ModelCard:
        """Say what is known of the model that serves."""
        predictor = service.live.writer.predictor
        metadata = predictor.metadata
        return ModelCard(
            **{name: getattr(metadata, name) for name in KNOWN},
            grades=predictor.grades,
            ranges={name: list(ends) for name, ends in metadata.ranges.items()},
            loaded=service.live.loaded.isoformat(timespec="seconds"),
        )


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=[SERVER], summary="Whether this process answers")
    async def say_alive() -> dict[Literal["status"], Literal["alive"]]:
        """Say that this process answers."""
        return {"status": "alive"}

    @app.get(
        "/ready",
        responses={503: {"model": Readiness, "description": "No model is loaded"}},
        tags=[MODEL],
        summary="Whether a checked model is loaded",
    )
    async def say_ready() -> Readiness:
        """Say whether a checked model is loaded."""
        predictor = service.live.predictor
        version = predictor.metadata.version if predictor else ""
        readiness = Readiness(ready=predictor is not None, version=version, refused=service.live.refused)
        return JSONResponse(readiness.model_dump(), 200 if predictor else 503)  # type: ignore[return-value]

    @app.get("/metrics", response_class=Response, tags=[SERVER], summary="Counters for Prometheus")
    async def show_metrics() -> Response:
        """Counters for Prometheus, over all processes."""
        return Response(await asyncio.to_thread(service.metrics.render), media_type=CONTENT_TYPE_LATEST)


@asynccontextmanager
async def _follow(service: Service) -> AsyncIterator[None]:
    """Follow the model and the log for as long as the server runs."""
    tasks = [asyncio.create_task(service.live.watch()), asyncio.create_task(_report_log(service))]
    yield
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    if service.log:
        await asyncio.to_thread(service.log.close)


async def _report_log(service: Service) -> None:
    """Take what the log has counted over into the metrics, for as long as it runs."""
    written = lost = 0
    while service.log is not None:
        counts = service.log.counts
        service.metrics.count_log(counts.written - written, counts.lost - lost, counts.waiting)
        written, lost = counts.written, counts.lost
        await asyncio.sleep(REPORT_SECONDS)


def _refusals(what: str) -> dict[int | str, dict[str, Any]]:
    texts = {
        401: "The key is missing or wrong",
        408: "The body did not arrive in time",
        413: "The body is too large",
        415: "The body is of another type",
        422: what,
        503: "Too many requests at once, or no model is loaded",
    }
    return {status: {"model": Problem, "description": text} for status, text in texts.items()}


def _describe_batch(rows: int) -> dict[str, Any]:
    wines = TypeAdapter(list[WineQuality]).json_schema(ref_template="#/components/schemas/{model}")
    table = ",".join(FEATURES) + "\n" + ",".join(str(EXAMPLE[name]) for name in FEATURES) + "\n"
    return {
        "required": True,
        "content": {
            JSON: {
                "schema": {"type": "array", "items": wines["items"], "minItems": 1, "maxItems": rows},
                "example": [EXAMPLE],
            },
            CSV: {"schema": {"type": "string"}, "example": table},
        },
    }


def _describe(app: FastAPI, needs_key: bool) -> dict[str, Any]:
    """FastAPI's description, with refusals under their own media type, and the key where one is asked for."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        for operation in [operation for path in schema["paths"].values() for operation in path.values()]:
            for response in operation["responses"].values():
                content = response.get("content", {})
                if content.get(JSON, {}).get("schema", {}).get("$ref", "").endswith("/Problem"):
                    content[PROBLEM_JSON] = content.pop(JSON)
        if needs_key:
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
        app.openapi_schema = schema
    return app.openapi_schema
