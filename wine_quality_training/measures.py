"""Measures of probabilities, which those of predictions (evaluate) do not see."""

import numpy as np

BINS = 15


def rank_probability_score(probabilities: np.ndarray, grades: np.ndarray, true: np.ndarray) -> float:
    """The ranked probability score, the lower the better: squared errors of P(grade <= k), summed over the k.

    `probabilities` has a column for each of the ascending `grades`. It is 0 for certainty of the true grade, and
    a probability two grades off costs more than one that is one grade off. Epstein, 1969.
    """
    below, reached = probabilities.cumsum(axis=1)[:, :-1], true[:, None] <= grades[:-1]
    return float(((below - reached) ** 2).sum(axis=1).mean())


def calibration_error(confidence: np.ndarray, hits: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error: the mean gap between confidence and share of hits, over bins of equal counts."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    gaps = [len(part) * abs(confidence[part].mean() - hits[part].mean()) for part in parts if len(part)]
    return float(sum(gaps) / len(confidence))
