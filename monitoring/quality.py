"""Quality of the predictions in a window: measured on graded wines, estimated for all.

The estimate is confidence-based performance estimation (CBPE): it maps each prediction's confidence to the accuracy
that predictions with this confidence had in cross-validation, and averages. It changes when traffic moves to wines with
a lower confidence. It cannot detect what the model cannot know: tasters who grade differently, or new wines with
wrongly high confidence. A measured figure is valid only for the graded wines, which may not be a random sample.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deployment.prediction_log.windows import Window
from wine_data.schema import TARGET
from wine_quality_training.bundle.grade_sets import find_true_masses, name_percent
from wine_quality_training.bundle.profile import PredictionProfile
from wine_quality_training.coverage import bound_share
from wine_quality_training.evaluate import bootstrap_intervals, measure_predictions

FEWEST_GRADED = 30  # with fewer, an interval is too wide to be useful
MEASURES = ("accuracy", "within_one", "kappa", "mae")
LOW_CONFIDENCE_SHARE = 0.1  # of the reference is below the limit for low confidence


@dataclass(frozen=True)
class Quality:
    """MEASURES of the predictions that tasters graded, with 95 % bootstrap intervals.

    If the model has grade sets, also coverage_80 and coverage_90: the share of predictions whose set contains the
    taster's grade, with its binomial interval.
    """

    graded: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Health:
    """The service in a window: latency in milliseconds, predictions per minute, share of refused wines."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_minute: float
    refused: float


def measure_quality(answers: pd.DataFrame, thresholds: Mapping[str, float] = {}) -> Quality | None:
    """Measure the graded predictions of a model; None if there are too few.

    `thresholds` are those of the model's grade sets, by level.
    """
    labelled = answers[answers[TARGET].notna()]
    if len(labelled) < FEWEST_GRADED:
        return None
    grades, predictions = (labelled[name].to_numpy("float64") for name in (TARGET, "prediction"))
    metrics, intervals = measure_predictions(grades, predictions), bootstrap_intervals(grades, predictions)
    quality = Quality(len(labelled), {n: metrics[n] for n in MEASURES}, {n: intervals[n] for n in MEASURES})
    return _add_coverage(quality, labelled, thresholds) if thresholds else quality


def name_coverage(level: str) -> str:
    """The name of the coverage metric at a level."""
    return f"coverage_{name_percent(level)}"


def _add_coverage(quality: Quality, labelled: pd.DataFrame, thresholds: Mapping[str, float]) -> Quality:
    masses = find_answered_masses(labelled)
    if not len(masses):
        return quality
    counts = {name_coverage(level): int((masses <= threshold).sum()) for level, threshold in thresholds.items()}
    shares = {name: count / len(masses) for name, count in counts.items()}
    intervals = {name: bound_share(count, len(masses)) for name, count in counts.items()}
    return Quality(quality.graded, quality.metrics | shares, quality.intervals | intervals)


def estimate_accuracy(answers: pd.DataFrame, predictions: PredictionProfile) -> float | None:
    """Estimate the accuracy of a window's predictions from their confidence (CBPE); None if there are none."""
    if answers.empty:
        return None
    sure, right = np.array(predictions.calibration).T
    return float(np.interp(answers["confidence"].to_numpy("float64"), sure, np.maximum.accumulate(right)).mean())


def count_low_confidence(answers: pd.DataFrame, predictions: PredictionProfile) -> float | None:
    """The share of predictions with a lower confidence than 90 % of the reference; None if there are none."""
    if answers.empty:
        return None
    first = int(np.argmax(np.array(predictions.confidence.shares) >= LOW_CONFIDENCE_SHARE))
    low = predictions.confidence.points[first]
    return float((answers["confidence"] < low).mean())


def measure_health(window: Window) -> Health | None:
    """Measure the service in a window; None if there are no predictions."""
    if window.answers.empty:
        return None
    p50, p95, p99 = np.percentile(window.answers["latency_ms"].to_numpy("float64"), [50, 95, 99]).tolist()
    seconds = max(float(window.answers["time"].max()) - window.span.since, 1.0)
    refused = window.asked - len(window.answers)
    return Health(p50, p95, p99, 60 * len(window.answers) / seconds, refused / window.asked)


def find_answered_masses(labelled: pd.DataFrame) -> np.ndarray:
    """The mass of the taster's grade in each graded prediction: a set contains it if its threshold is not lower.

    All are of one model. Masses come from the logged probabilities; predictions with unreadable ones are left out.
    """
    rows = pd.DataFrame([_read_probabilities(text) for text in labelled["probabilities"]], index=labelled.index)
    grades = sorted(int(name) for name in rows.columns)
    names = {str(grade): f"probability_{grade}" for grade in grades}
    known = rows.rename(columns=names).dropna()
    answers = labelled.loc[known.index, ["prediction", TARGET]].astype("int64")
    return find_true_masses(answers.join(known), grades) if grades else np.empty(0)


def _read_probabilities(text: object) -> dict[str, float]:
    try:
        read = json.loads(str(text))
    except ValueError:
        return {}
    return {name: float(share) for name, share in read.items()} if isinstance(read, dict) else {}
