"""What the API is measured against: a route that does nothing, one that calls scikit-learn, and its own as FastAPI's.

uvicorn tests.benchmarks.serving_apps:noop
uvicorn --factory tests.benchmarks.serving_apps:make_ordinary
WINE_PICKLE=model.pkl uvicorn --factory tests.benchmarks.serving_apps:make_plain
"""

import os
import pickle
from pathlib import Path
from time import perf_counter

import pandas as pd
from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from starlette.responses import Response
from starlette.types import ASGIApp

from deployment.api.limits import Guard
from deployment.api.predict import JSON, Predict
from deployment.api.problems import SCOPE_ID
from deployment.serve import make_service, reduce_latency_spikes
from settings import load_settings
from wine_data.schema import FEATURES, WineQuality

noop = FastAPI()


@noop.post("/predict")
async def answer_nothing(wine: WineQuality) -> dict[str, int]:  # noqa: ARG001
    """Check the body and answer at once: what FastAPI costs by itself."""
    return {"prediction": 6}


def make_ordinary() -> ASGIApp:
    """This API with POST /predict as an ordinary FastAPI route, from a Request to a Response."""
    settings = load_settings()
    service = make_service(settings)
    app, predict = FastAPIOffline(), Predict(service)

    @app.post("/predict")
    async def answer(request: Request) -> Response:
        headers, start = dict(request.scope["headers"]), perf_counter()
        answered = await predict.answer(request.scope[SCOPE_ID], headers, request.receive, start)
        return Response(answered, media_type=JSON)

    @app.get("/health")
    async def check_health() -> dict[str, str]:
        return {"status": "alive"}

    reduce_latency_spikes()
    return Guard(app, service.metrics, settings.in_flight)


def make_plain() -> FastAPI:
    """The app that one writes first: a sync route around classifier.predict."""
    plain = FastAPI()
    model = pickle.loads(Path(os.environ["WINE_PICKLE"]).read_bytes())

    @plain.post("/predict")
    def predict(wine: WineQuality) -> dict[str, int]:
        """Ask the pickled classifier."""
        table = pd.DataFrame([wine.model_dump()], columns=list(FEATURES))
        return {"prediction": int(model.predict(table)[0])}

    return plain
