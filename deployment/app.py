"""The API: one wine in, its grade out.

    python -m deployment.app

serves the current bundle on WINE_HOST and WINE_PORT.
"""

import argparse
import socket
import uuid
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field

from commands import DONE, NotThereError, run_command
from deployment.engine import Engine, load_engine
from settings import load_settings
from wine_data.schema import WineQuality, feature_array


class ServingModel(BaseModel):
    """Which model answered."""

    name: str
    version: str
    run_id: str


class Prediction(BaseModel):
    """The answer to one wine."""

    request_id: str
    prediction: int = Field(description="the likeliest grade, 3 to 9")
    probabilities: dict[str, float] = Field(description="by grade; they add up to 1")
    expected_quality: float = Field(description="mean grade under these probabilities")
    model: ServingModel
    warnings: list[str] = Field(description="measurements outside what the model was fitted on")


REASONS = {  # in place of pydantic's words, which speak of Python
    "model_attributes_type": "Send one wine as a JSON object, with the header Content-Type: application/json",
    "json_invalid": "This is not JSON",
}


class Refusal(BaseModel):
    """Why one field of a body was refused."""

    field: str
    reason: str


class Problem(BaseModel):
    """What was wrong with a request, in the form of RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Refusal]


def create_app(engine: Engine) -> FastAPI:
    """Make the API around a loaded engine."""
    app = FastAPIOffline(
        title="Wine quality",
        description="Predicts the grade of a wine, 3 to 9, from eleven laboratory measurements and its colour.",
        version=engine.facts.version,
    )
    facts = engine.facts
    model = ServingModel(name=facts.name, version=facts.version, run_id=facts.run_id)

    @app.get("/")
    async def greet() -> dict[str, str]:
        """Say hello and where to go."""
        return {
            "message": "Hello. This is the wine quality API.",
            "predict": "POST /predict",
            "try it": "/docs",
            "model": f"{facts.name} version {facts.version}",
        }

    @app.post("/predict", responses={422: {"model": Problem, "description": "The body is not a wine"}})
    def predict(wine: WineQuality) -> Prediction:
        """Grade one wine."""
        probabilities = engine.predict_probabilities(feature_array([wine]))[0]
        return Prediction(
            request_id=uuid.uuid4().hex,
            prediction=engine.grades[int(probabilities.argmax())],
            probabilities={str(grade): float(p) for grade, p in zip(engine.grades, probabilities, strict=True)},
            expected_quality=float(probabilities @ engine.grades),
            model=model,
            warnings=engine.list_warnings(wine),
        )

    app.add_exception_handler(RequestValidationError, refuse_body)
    return app


async def refuse_body(_: Request, error: Exception) -> JSONResponse:
    """Answer 422 with each wrong field and why. The value itself stays out: NaN has no form in JSON."""
    assert isinstance(error, RequestValidationError)
    refusals = [
        Refusal(field=_name_field(problem), reason=REASONS.get(problem["type"], problem["msg"]))
        for problem in error.errors()
    ]
    problem = Problem(
        type="about:blank",
        title="The body is not a wine",
        status=422,
        detail="; ".join(f"{refusal.field}: {refusal.reason}" for refusal in refusals),
        errors=refusals,
    )
    return JSONResponse(problem.model_dump(), status_code=422, media_type="application/problem+json")


def _name_field(problem: dict[str, Any]) -> str:
    """Name the field that a problem is about; JSON that cannot be read has a position there instead."""
    names = [] if problem["type"] == "json_invalid" else problem["loc"][1:]
    return ".".join(map(str, names)) or "body"


def require_free_port(host: str, port: int) -> None:
    """Raise NotThereError if something listens on the port already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise NotThereError(
                f"{host}:{port} cannot be used ({error.strerror}): "
                "end what runs there, or set WINE_PORT to another port"
            ) from error


def main() -> int:
    """Serve the current bundle until stopped."""
    argparse.ArgumentParser(
        description="Serve the current model: POST /predict, /docs to try it. WINE_HOST and WINE_PORT say where."
    ).parse_args()
    settings = load_settings()
    engine = load_engine(settings.serving_models)
    require_free_port(settings.host, settings.port)
    print(f"{engine.facts.name} version {engine.facts.version} on http://{settings.host}:{settings.port}")
    print(f"Next: open http://{settings.host}:{settings.port}/docs, or stop with ctrl-c")
    uvicorn.run(create_app(engine), host=settings.host, port=settings.port, log_level="warning")
    return DONE


if __name__ == "__main__":
    run_command(main)
