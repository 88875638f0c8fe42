"""The flows' parameters, with descriptions and validation for Prefect's pages."""

from typing import Annotated, Literal

from pydantic import Field

from wine_quality_training.models import ALL_MODELS

ModelName = Literal[*ALL_MODELS]  # type: ignore[valid-type]
Folds = Annotated[
    int | None, Field(ge=2, le=20, description="folds of the leak-free cross-validation; empty: WINE_FOLDS")
]
Seed = Annotated[int | None, Field(ge=0, lt=2**32, description="seed of every random draw; empty: WINE_SEED")]
Trials = Annotated[int, Field(ge=1, description="trials of the search")]
SearchTrials = Annotated[int, Field(ge=0, description="trials of a search for a better classifier; 0: no search")]
Reason = Annotated[str, Field(description="reason for a retraining, such as an alarm; empty: scheduled")]
Since = Annotated[
    float, Field(ge=0, description="with a reason: use graded answers since this time, in seconds since 1970")
]
Models = Annotated[
    tuple[ModelName, ...], Field(min_length=1, description="the models to compare, a classifier among them")
]
Source = Annotated[str, Field(description="source of the wines, as in WINE_DATA; empty: WINE_DATA of the worker")]
