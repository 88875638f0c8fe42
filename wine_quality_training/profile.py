"""What a model expects to see: a compact profile of the wines that it learned from, kept with its facts.

A profile has no wines in it. Each column is a handful of points with the share of wines at or below each;
that is enough to compare a window of live traffic with. The guesses and their confidence are those of
cross-validation, each from a model that had not seen the wine: on wines that it was fitted on, a forest is
always right and always sure, and live traffic would look like drift from the first hour on.

A model that was retrained on labelled answers has two profiles: of the wines that it was first trained on
and of those answers. Traffic that looks like either is what it knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wine_data.schema import ANSWERED, FEATURES, MEASUREMENTS, RED, TARGET

if TYPE_CHECKING:  # a server reads facts and needs no pandas
    import pandas as pd

LEVELS = 20  # quantiles a column: points 5 % apart
CALIBRATION_BINS = 10
KNOWN, LABELLED = "the wines it was trained on", "labelled answers"


@dataclass(frozen=True)
class Marginal:
    """The distribution of one column: ascending `points`, and the share of wines at or below each."""

    points: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Guesses:
    """How a model does on wines it has not seen, from cross-validation.

    Attributes:
        predictions: the grades that it gives.
        confidence: the highest of its probabilities.
        calibration: pairs (confidence, share of right grades), from the least sure tenth of the wines to the surest.
        bias: mean of quality - prediction, in grades, and its standard deviation over the wines.
        squared_error: mean of (quality - prediction) squared, and its standard deviation.
    """

    predictions: Marginal
    confidence: Marginal
    calibration: tuple[tuple[float, float], ...]
    bias: tuple[float, float]
    squared_error: tuple[float, float]


@dataclass(frozen=True)
class Profile:
    """One part of what a model learned from: how many wines, each feature and the grade; guesses of a classifier."""

    part: str
    wines: int
    features: dict[str, Marginal]
    grades: Marginal
    guesses: Guesses | None


def profile_wines(wines: "pd.DataFrame", guesses: "pd.DataFrame | None") -> tuple[Profile, ...]:
    """Profile the wines that a model was fitted on, and labelled answers among them by themselves.

    Args:
        wines: the training side.
        guesses: of the same wines in the same order, with columns `guess` and `confidence`; None where there are none.
    """
    answered = wines[ANSWERED].eq(True) if ANSWERED in wines else wines[TARGET].isna()
    parts = {KNOWN: ~answered, LABELLED: answered}
    return tuple(
        _profile_part(name, wines[members], None if guesses is None else guesses[members.to_numpy()])
        for name, members in parts.items()
        if members.any()
    )


def describe_column(values: "np.ndarray | pd.Series") -> Marginal:
    """The distribution of a column; holes are left out."""
    known = np.sort(np.asarray(values, dtype="float64"))
    known = known[~np.isnan(known)]
    if len(set(known.tolist())) <= LEVELS:
        points = np.unique(known)
    else:
        points = np.unique(np.quantile(known, np.linspace(0, 1, LEVELS + 1), method="inverted_cdf"))
    shares = np.searchsorted(known, points, side="right") / len(known)
    return Marginal(tuple(points.tolist()), tuple(shares.round(6).tolist()))


def read_profiles(told: Sequence[Mapping[str, Any]]) -> tuple[Profile, ...]:
    """Profiles from the JSON of a facts file. Raises TypeError or KeyError where they have another form."""
    return tuple(
        Profile(
            part=part["part"],
            wines=part["wines"],
            features={name: _read_marginal(part["features"][name]) for name in FEATURES},
            grades=_read_marginal(part["grades"]),
            guesses=_read_guesses(part["guesses"]) if part["guesses"] else None,
        )
        for part in told
    )


def _profile_part(name: str, wines: "pd.DataFrame", guesses: "pd.DataFrame | None") -> Profile:
    features = {column: describe_column(wines[column]) for column in (*MEASUREMENTS, RED)}
    sure = guesses is not None and "confidence" in guesses
    described = _describe_guesses(guesses, wines[TARGET].to_numpy()) if guesses is not None and sure else None
    return Profile(name, len(wines), features, describe_column(wines[TARGET]), described)


def _describe_guesses(guesses: "pd.DataFrame", grades: np.ndarray) -> Guesses:
    guess, confidence = guesses["guess"].to_numpy("float64"), guesses["confidence"].to_numpy("float64")
    errors = grades - guess
    return Guesses(
        predictions=describe_column(guess),
        confidence=describe_column(confidence.round(6)),  # trees add up to .43 or to .43000000000000005
        calibration=tuple(
            (float(confidence[tenth].mean()), float((errors[tenth] == 0).mean()))
            for tenth in np.array_split(np.argsort(confidence, kind="stable"), CALIBRATION_BINS)
            if len(tenth)
        ),
        bias=(float(errors.mean()), float(errors.std())),
        squared_error=(float((errors**2).mean()), float((errors**2).std())),
    )


def _read_marginal(told: Mapping[str, Any]) -> Marginal:
    return Marginal(tuple(told["points"]), tuple(told["shares"]))


def _read_guesses(told: Mapping[str, Any]) -> Guesses:
    return Guesses(
        predictions=_read_marginal(told["predictions"]),
        confidence=_read_marginal(told["confidence"]),
        calibration=tuple((sure, right) for sure, right in told["calibration"]),
        bias=(told["bias"][0], told["bias"][1]),
        squared_error=(told["squared_error"][0], told["squared_error"][1]),
    )
