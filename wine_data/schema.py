"""One wine: the only file that names the features, the project's model and experiments, and what a row is called.

All code lays out its tables here, so training and serving cannot disagree on a model's columns. The bounds are
physical: they refuse what cannot be a wine. The range of the 6,497 published wines is beside each as `seen`.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:  # serving needs the names and bounds, and no pandas
    import pandas as pd

TYPE = "type"
ANSWERED = "answered"  # a column that marks wines that the API predicted and a taster graded


def _measurement(low: float, high: float, seen: tuple[float, float], text: str, example: float) -> Any:
    # strict: "8.8" and true are no measurements
    return Field(
        strict=True, ge=low, le=high, description=text, examples=[example], json_schema_extra={"seen": list(seen)}
    )


def _flag(text: str, example: int) -> Any:
    # strict: 1.0 is fine, 0.5 is not
    return Field(
        strict=True,
        ge=0,
        le=1,
        multiple_of=1,
        description=text,
        examples=[example],
        json_schema_extra={"type": "integer"},
    )


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# Your own data: all from here to the end of the class. docs/your_own.md has an example.
NAME = "wine-quality"  # of the registered model; experiments, flows and their tags have it too
TITLE = "Wine quality"  # of the API and its page
ROW, ROWS = "wine", "wines"  # what a row is, one and many
RATERS = "tasters"  # who gives the true grades
PURPOSE = "Predicts the grade that tasters would give a wine, from its laboratory measurements and its colour."
USE = (
    "Use it to support a taster or to sort samples. "
    "Do not base a price, a claim on a label or a decision about a person on it."
)
LIMITS = (
    "The published wines are Portuguese Vinho Verde of 2004 to 2007. "
    "Grades 3, 4, 8 and 9 are rare, and the model seldom predicts them."
)
LICENCE = "CC BY 4.0; derived from Cortez et al. (2009), Wine Quality, UCI data set 186"  # of the data
TARGET = "quality"  # the column with the grade, and the field of POST /feedback
GRADES = (3, 4, 5, 6, 7, 8, 9)  # those that occur in the data
SCALE = (0, 10)  # the lowest and the highest that can be given
TYPES = ("red", "white")  # the two words, of letters, of the column `type`; () without such a column
CATEGORY = "colour"  # what they are called; "" without
# Never blank in the published files: with the category they decide between train and holdout (split.py).
IDENTITY = ("free_sulfur_dioxide", "total_sulfur_dioxide", "density", "alcohol")
PARTS = (("free_sulfur_dioxide", "total_sulfur_dioxide"),)  # one is a part of the other, and cannot be more


class WineQuality(_Row):
    """Laboratory measurements of one wine, in the order of the model's columns."""

    fixed_acidity: float = _measurement(0, 30, (3.8, 15.9), "g tartaric acid / dm3", 7.0)
    volatile_acidity: float = _measurement(0, 5, (0.08, 1.58), "g acetic acid / dm3", 0.27)
    citric_acid: float = _measurement(0, 5, (0.0, 1.66), "g / dm3", 0.36)
    residual_sugar: float = _measurement(0, 300, (0.6, 65.8), "g / dm3", 20.7)
    chlorides: float = _measurement(0, 3, (0.009, 0.611), "g sodium chloride / dm3", 0.045)
    free_sulfur_dioxide: float = _measurement(0, 500, (1.0, 289.0), "mg / dm3", 45.0)
    total_sulfur_dioxide: float = _measurement(0, 1000, (6.0, 440.0), "mg / dm3", 170.0)
    density: float = _measurement(0.9, 1.2, (0.98711, 1.03898), "g / cm3", 1.001)
    pH: float = _measurement(2, 5, (2.72, 4.01), "acidity, no unit", 3.0)
    sulphates: float = _measurement(0, 5, (0.22, 2.0), "g potassium sulphate / dm3", 0.45)
    alcohol: float = _measurement(0, 25, (8.0, 14.9), "% by volume", 8.8)
    red_wine: float = _flag("1 for red, 0 for white", 0)  # 1 for the first of TYPES; the last field


# What follows from that: nothing to change here.
FEATURES = tuple(WineQuality.model_fields)
FLAGS = FEATURES[-1:] if TYPES else ()  # the 0/1 column of the category, where there is one
MEASUREMENTS = FEATURES[: len(FEATURES) - len(FLAGS)]
FLAG_PLACES = range(len(MEASUREMENTS), len(FEATURES))
KINDS = TYPES or (ROW,)  # what the column `type` of a table that was read holds
_PROPERTIES = WineQuality.model_json_schema()["properties"]
BOUNDS = {name: (_PROPERTIES[name]["minimum"], _PROPERTIES[name]["maximum"]) for name in FEATURES}
SEEN = {name: tuple(_PROPERTIES[name]["seen"]) for name in MEASUREMENTS}
EXAMPLE = {name: _PROPERTIES[name]["examples"][0] for name in FEATURES}  # the first wine of the published data

feature_values: Callable[[WineQuality], tuple[float, ...]] = attrgetter(*FEATURES)  # of one wine, in order


def encode_type(wines: "pd.DataFrame") -> "pd.DataFrame":
    """Add the category as 0 and 1 (red_wine: 1 red, 0 white) to a table with the column `type`."""
    return wines.assign(**{flag: (wines[TYPE] == TYPES[0]).astype("int64") for flag in FLAGS})


def decode_type(wines: "pd.DataFrame") -> "pd.DataFrame":
    """Add the column `type` to a table of FEATURES."""
    import pandas as pd

    kinds = np.where(wines[FLAGS[0]] == 1, *TYPES) if FLAGS else KINDS[0]
    return wines.assign(**{TYPE: pd.Series(kinds, index=wines.index, dtype="str")})


def feature_frame(wines: "pd.DataFrame") -> "pd.DataFrame":
    """Lay a table of wines out as models are fitted on it: FEATURES in order, float64, holes as NaN."""
    return wines.loc[:, list(FEATURES)].astype("float64")


def feature_array(wines: Sequence[WineQuality]) -> np.ndarray:
    """Lay wines out for serving: shape (wines, 12), float64, the same numbers as feature_frame."""
    return np.array([feature_values(wine) for wine in wines], dtype="float64").reshape(len(wines), len(FEATURES))
