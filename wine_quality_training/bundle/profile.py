"""Profiles: the distributions of the wines a model was fitted on; live traffic is compared with them.

A profile is part of the metadata and contains no wines: each column is a few points with the share of wines at or below
each. The predictions and their confidence are out-of-fold, from cross-validation. On wines that it was fitted on, a
forest is always right and always confident, so live traffic would look like drift from the first hour.

A model that was retrained on labelled answers has two profiles: of its first wines and of those answers. Traffic that
is like either of them, or like a mixture of both, is not drift.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from wine_data.schema import ANSWERED, FEATURES, ROWS, TARGET

if TYPE_CHECKING:  # a server reads metadata and needs no pandas
    import pandas as pd

LEVELS = 20  # quantiles per column: points 5 % apart
CALIBRATION_BINS = 10
KNOWN, LABELLED = f"the {ROWS} it was trained on", "labelled answers"


@dataclass(frozen=True)
class Marginal:
    """The distribution of one column: ascending `points`, and the share of wines at or below each."""

    points: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class PredictionProfile:
    """A classifier's predictions in cross-validation.

    Attributes:
        predictions: the predicted grades.
        confidence: the probabilities of these predictions.
        calibration: pairs (confidence, share of correct grades), from the least to the most confident tenth.
        bias: mean of quality - prediction, in grades, and its standard deviation over the wines.
        squared_error: mean of (quality - prediction) squared, and its standard deviation.
    """

    predictions: Annotated[Marginal, Field(alias="guesses")]  # its name in the JSON
    confidence: Marginal
    calibration: tuple[tuple[float, float], ...]
    bias: tuple[float, float]
    squared_error: tuple[float, float]


@dataclass(frozen=True)
class Profile:
    """A part of the wines a model was fitted on: number, features, grades and a classifier's predictions."""

    part: str
    wines: int
    features: dict[str, Marginal]
    grades: Marginal
    predictions: Annotated[PredictionProfile | None, Field(alias="guesses")]  # its name in the JSON


def profile_wines(wines: "pd.DataFrame", predictions: "pd.DataFrame | None") -> tuple[Profile, ...]:
    """Profile the wines that a model was fitted on, and separately the labelled answers among them.

    `predictions` has the same wines in the same order, with `prediction` and, for a classifier, `confidence`.
    """
    answered = wines[ANSWERED].eq(True) if ANSWERED in wines else wines[TARGET].isna()
    profiles = []
    for name, members in {KNOWN: ~answered, LABELLED: answered}.items():
        if members.any():
            part = wines[members]
            features = {column: describe_column(part[column]) for column in FEATURES}
            grades = part[TARGET].to_numpy()
            described = None
            if predictions is not None and "confidence" in predictions:
                described = _describe_predictions(predictions[members.to_numpy()], grades)
            profiles.append(Profile(name, len(part), features, describe_column(grades), described))
    return tuple(profiles)


def mix_profiles(first: Profile, second: Profile, share: float) -> Profile:
    """The profile of a mixture: this share of the wines is like the second profile, the rest like the first."""

    def mix(one: Marginal, other: Marginal) -> Marginal:
        known, guest = (one.points, other.points) if share <= 1 / 2 else (other.points, one.points)
        # between the larger part's own points, its share would have to be estimated
        points = np.array(sorted({*known, *(point for point in guest if not known[0] <= point <= known[-1])}))
        shares = (1 - share) * _read_shares(one, points) + share * _read_shares(other, points)
        return Marginal(tuple(points.tolist()), tuple(shares.tolist()))

    predictions, one, other = None, first.predictions, second.predictions
    if one and other:
        predictions = PredictionProfile(
            predictions=mix(one.predictions, other.predictions),
            confidence=mix(one.confidence, other.confidence),
            calibration=(one if share < 1 / 2 else other).calibration,
            bias=_mix_means(one.bias, other.bias, share),
            squared_error=_mix_means(one.squared_error, other.squared_error, share),
        )
    return Profile(
        part=f"{1 - share:.0%} {first.part}, {share:.0%} {second.part}",
        wines=round(1 / ((1 - share) ** 2 / first.wines + share**2 / second.wines)),  # as uncertain as the mixture
        features={name: mix(first.features[name], second.features[name]) for name in first.features},
        grades=mix(first.grades, second.grades),
        predictions=predictions,
    )


def describe_column(values: "np.ndarray | pd.Series") -> Marginal:
    """The distribution of a column without its blank cells."""
    known = np.sort(np.asarray(values, dtype="float64"))
    known = known[~np.isnan(known)]
    if len(set(known.tolist())) <= LEVELS:
        points = np.unique(known)
    else:
        points = np.unique(np.quantile(known, np.linspace(0, 1, LEVELS + 1), method="inverted_cdf"))
    shares = np.searchsorted(known, points, side="right") / len(known)
    return Marginal(tuple(points.tolist()), tuple(shares.round(6).tolist()))


def _read_shares(column: Marginal, points: np.ndarray) -> np.ndarray:
    """The share of wines at or below each point: linear between quantiles, a step function if values are few."""
    if len(column.points) <= LEVELS:
        steps: np.ndarray = np.append(0.0, column.shares)[np.searchsorted(column.points, points, side="right")]
        return steps
    return np.asarray(np.interp(points, column.points, column.shares, left=0.0))


def _mix_means(one: tuple[float, float], other: tuple[float, float], share: float) -> tuple[float, float]:
    """Mean and standard deviation of a mixture, from those of its parts."""
    means, deviations = np.array([one, other]).T
    weights = np.array([1 - share, share])
    mean = float(weights @ means)
    return mean, float(np.sqrt(weights @ (deviations**2 + (means - mean) ** 2)))


def _describe_predictions(predictions: "pd.DataFrame", grades: np.ndarray) -> PredictionProfile:
    prediction, confidence = (predictions[name].to_numpy("float64") for name in ("prediction", "confidence"))
    errors = grades - prediction
    return PredictionProfile(
        predictions=describe_column(prediction),
        confidence=describe_column(confidence.round(6)),  # a sum over trees may be .43 or .43000000000000005
        calibration=tuple(
            (float(confidence[tenth].mean()), float((errors[tenth] == 0).mean()))
            for tenth in np.array_split(np.argsort(confidence, kind="stable"), CALIBRATION_BINS)
            if len(tenth)
        ),
        bias=(float(errors.mean()), float(errors.std())),
        squared_error=(float((errors**2).mean()), float((errors**2).std())),
    )
