"""What the API is measured against: a route that does nothing, and one that calls scikit-learn.

uvicorn tests.benchmarks.serving_apps:noop
WINE_PICKLE=model.pkl uvicorn --factory tests.benchmarks.serving_apps:make_plain
"""

import os
import pickle
from pathlib import Path

import pandas as pd
from fastapi import FastAPI

from wine_data.schema import FEATURES, WineQuality

noop = FastAPI()


@noop.post("/predict")
async def answer_nothing(wine: WineQuality) -> dict[str, int]:  # noqa: ARG001
    """Check the body and answer at once: what FastAPI costs by itself."""
    return {"prediction": 6}


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
