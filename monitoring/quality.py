"""How good the answers of a window were: measured where tasters have graded them, estimated where they have not.

The estimate is confidence-based performance estimation (CBPE): it takes each answer's confidence to the share of
right grades that answers as sure had in cross-validation, and averages. It moves when traffic moves to wines that the
model is less sure of. It cannot see what the model itself cannot: that tasters judge otherwise, or new wines that it
is wrongly sure of. A measured figure holds for the graded wines only, which tasters may not have chosen at random.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from deployment.prediction_log.windows import Window
from wine_quality_training.bundle.profile import PredictionProfile
from wine_quality_training.evaluate import bootstrap_intervals, measure_predictions

FEWEST_GRADED = 30  # of fewer an interval says nothing
MEASURES = ("accuracy", "within_one", "kappa", "mae")
LOW_CONFIDENCE_SHARE = 0.1  # of the reference lies under what counts as low


@dataclass(frozen=True)
class Quality:
    """MEASURES of the answers that tasters graded, with 95 % bootstrap intervals."""

    graded: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Health:
    """How the service did in a window: milliseconds an answer took, answers a minute, share of refused wines."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_minute: float
    refused: float


def measure_quality(answers: pd.DataFrame) -> Quality | None:
    """Measure the answers that have a grade; None where they are too few."""
    labelled = answers[answers["quality"].notna()]
    if len(labelled) < FEWEST_GRADED:
        return None
    grades, predictions = (labelled[name].to_numpy("float64") for name in ("quality", "prediction"))
    metrics, intervals = measure_predictions(grades, predictions), bootstrap_intervals(grades, predictions)
    return Quality(len(labelled), {n: metrics[n] for n in MEASURES}, {n: intervals[n] for n in MEASURES})


def estimate_accuracy(answers: pd.DataFrame, predictions: PredictionProfile) -> float | None:
    """Estimate the accuracy of a window's answers from their confidence (CBPE); None for no answers."""
    if answers.empty:
        return None
    sure, right = np.array(predictions.calibration).T
    return float(np.interp(answers["confidence"].to_numpy("float64"), sure, np.maximum.accumulate(right)).mean())


def count_low_confidence(answers: pd.DataFrame, predictions: PredictionProfile) -> float | None:
    """The share of answers less sure than nine tenths of the reference; None for no answers."""
    if answers.empty:
        return None
    first = int(np.argmax(np.array(predictions.confidence.shares) >= LOW_CONFIDENCE_SHARE))
    low = predictions.confidence.points[first]
    return float((answers["confidence"] < low).mean())


def measure_health(window: Window) -> Health | None:
    """How the service did; None where nothing was answered."""
    if window.answers.empty:
        return None
    p50, p95, p99 = np.percentile(window.answers["latency_ms"].to_numpy("float64"), [50, 95, 99]).tolist()
    seconds = max(float(window.answers["time"].max()) - window.span.since, 1.0)
    refused = window.asked - len(window.answers)
    return Health(p50, p95, p99, 60 * len(window.answers) / seconds, refused / window.asked)
