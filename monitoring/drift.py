"""Drift of a window against the reference: one check for each monitored quantity.

Each distribution has two statistics. KS is the largest difference between the shares at or below a value, from 0 to 1:
it detects a shift. PSI, the population stability index, sums (current - reference) x ln(current / reference) over bins:
it detects a change of shape. Both are computed at the points of a profile.

A check has drifted only if a difference is significant *and* large. Significant: its p-value, times the number of tests
in the window (Bonferroni), is below ALPHA. With 5,000 predictions in a window any small difference is significant,
hence the floors; with 200, large differences occur by chance, hence the p-value. A repeated wine counts once: else
fifty wines of one client would be as significant as a thousand. Below FEWEST predictions or FEWEST_WINES nothing is
checked. A single drifted window is not yet an alarm (watch.py).

Sources: without drift, sqrt(nm/(n+m)) KS follows Kolmogorov's distribution. nm/(n+m) PSI, which is Jeffreys'
divergence, is approximately chi-square with bins - 1 degrees of freedom. n and m are the sizes of window and reference.
With few distinct values both are conservative.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import kolmogorov
from scipy.stats import binom, chi2, norm

from deployment.prediction_log.windows import Window, select_model
from monitoring.quality import find_answered_masses
from wine_data.schema import FEATURES, MEASUREMENTS, RATERS, TARGET
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.bundle.profile import Marginal, PredictionProfile, Profile, mix_profiles

ALPHA = 0.05  # probability of a false positive per window, before "K of the last N" (watch.py)
FEWEST, FEWEST_LABELS = 100, 30  # predictions; half of the smallest window may be refused, and most have no grade
FEWEST_WINES = 30  # distinct; from this number on, p-values hold (measured on wines of the twin)
KS_FLOOR, PSI_FLOOR = 0.06, 0.05  # a shift of a quarter of a standard deviation has KS 0.1 and PSI 0.06
USUAL_SHARE = 0.01  # of a window, out of range or refused; by chance 1 wine in 2,000 is outside the range of 4,000
SHARE_FLOOR = 0.02
BIAS_FLOOR, ERROR_FLOOR = 0.15, 0.15  # in grades; relative increase of the squared error
COVERAGE_FLOOR = 0.05  # of the predictions, below what the widest grade sets promise
SAME = 1e-6  # of a column's range: values at most this far apart are equal
SMALLEST_BIN, MOST_BINS = 0.05, 10
MIXTURES = tuple(tenths / 10 for tenths in range(1, 10))  # any share is closer than KS_FLOOR to one of these

INPUTS, PREDICTIONS, REFUSALS, QUALITY = "inputs", "predictions", "refusals", "quality"
OTHER = "another field"
MOST_REASONS = 3  # shown per field
KINDS = (INPUTS, PREDICTIONS, REFUSALS, QUALITY)


@dataclass(frozen=True)
class Check:
    """One monitored quantity in one window.

    Attributes:
        kind: inputs, predictions, refusals or quality.
        name: the feature, or another quantity in words.
        figures: the effect by measure: KS and PSI, or a share, or grades.
        p: the smallest p-value of the measures that reach their floor; 1 if none does.
        strength: the largest effect as a multiple of its floor; 1 or more is large.
        drifted: significant and large.
    """

    kind: str
    name: str
    figures: dict[str, float]
    p: float
    strength: float
    drifted: bool = False

    def sentence(self) -> str:
        """Name, figures and p-value as text."""
        figures = ", ".join(f"{measure} {value:.3g}" for measure, value in self.figures.items())
        return f"{self.name}: {figures} ({'p < 0.001' if self.p < 0.001 else f'p = {self.p:.3f}'})"


def check_window(window: Window, part: Profile, metadata: ModelMetadata) -> tuple[Check, ...]:
    """Compare a window with a part of the model's reference; predictions and quality only of this model."""
    checks = [*_check_inputs(window, part, metadata), *_check_refusals(window)]
    if part.predictions:
        ours = replace(window, answers=select_model(window.answers, metadata.version, metadata.run_id))
        checks += _check_predictions(ours, part.predictions, part.wines)
        checks += _check_quality(ours, part, part.predictions)
        checks += _check_coverage(ours, part.wines, metadata.grade_sets)
    return tuple(decide(checks))


def distinct_answers(answers: pd.DataFrame) -> pd.DataFrame:
    """The first prediction for each distinct wine of a table."""
    return answers.drop_duplicates(list(FEATURES))


def find_nearest(window: Window, profiles: Sequence[Profile]) -> Profile:
    """The profile, or mixture of two profiles, nearest to the inputs of a window by the sum of PSI."""
    if window.answers.empty or len(profiles) == 1:
        return profiles[0]
    answers = distinct_answers(window.answers)

    def sum_psi(part: Profile) -> float:
        return sum(compare(part.features[name], part.wines, answers[name].to_numpy())["PSI"][0] for name in FEATURES)

    pairs = itertools.product(itertools.combinations(profiles, 2), MIXTURES)
    return min([*profiles, *(mix_profiles(*pair, share) for pair, share in pairs)], key=sum_psi)


def count_refusals(window: Window) -> dict[str, int]:
    """Count the refused wines by feature, or OTHER; a refused batch counts all its wines."""
    return {str(name): int(count) for name, count in _sum_wines(window, "field").items()}


def describe_reasons(window: Window) -> dict[str, str]:
    """The reasons for refusals by field, most frequent first, with the number of wines."""
    counts = _sum_wines(window, "field", "reason").sort_values(ascending=False)
    reasons: dict[str, list[str]] = {}
    for field, reason, count in counts.reset_index().itertuples(index=False):
        reasons.setdefault(field, []).append(f"{reason} ({count:,})")
    return {field: "; ".join(texts[:MOST_REASONS]) for field, texts in reasons.items()}


def compare(reference: Marginal, size: int, values: np.ndarray) -> dict[str, tuple[float, float]]:
    """Compare values with the reference distribution of `size` wines: KS and PSI, each with its p-value."""
    points, shares = np.array(reference.points), np.array(reference.shares)
    known = np.sort(values[~np.isnan(values)])
    effective = len(known) * size / (len(known) + size)
    # A confidence such as 13 of 30 trees has different last digits in the log and in the profile, but is the same.
    current = np.searchsorted(known, points + SAME * (points[-1] - points[0]), side="right") / len(known)
    ks = float(np.abs(current - shares).max())
    edges = _choose_edges(shares)
    expected = _smooth(np.diff(shares[edges], prepend=0.0), size)
    found = _smooth(np.diff(np.append(current[edges[:-1]], 1.0), prepend=0.0), len(known))
    psi = float(((found - expected) * np.log(found / expected)).sum())
    return {
        "KS": (ks, float(kolmogorov(math.sqrt(effective) * ks))),
        "PSI": (psi, float(chi2.sf(effective * psi, max(len(edges) - 1, 1)))),
    }


def decide(checks: Sequence[Check]) -> Iterator[Check]:
    """Correct the p-values of a window's checks for multiple tests, and decide which checks have drifted."""
    tests = sum(len(check.figures) for check in checks)
    for check in checks:
        p = min(1.0, check.p * tests)
        yield replace(check, p=p, drifted=p < ALPHA and check.strength >= 1)


def _check_inputs(window: Window, part: Profile, metadata: ModelMetadata) -> Iterator[Check]:
    answers = _choose_answers(window)
    if answers is None:
        return
    for name in FEATURES:
        yield _check_distribution(INPUTS, name, part.features[name], part.wines, answers[name].to_numpy())
    for name in MEASUREMENTS:
        low, high = metadata.ranges[name]
        outside = int(((answers[name] < low) | (answers[name] > high)).sum())
        yield _check_share(INPUTS, f"{name} outside", outside, len(answers))


def _choose_answers(window: Window) -> pd.DataFrame | None:
    """The first prediction for each distinct wine; None if there are too few predictions or wines to compare."""
    answers = distinct_answers(window.answers)
    return None if len(window.answers) < FEWEST or len(answers) < FEWEST_WINES else answers


def _check_refusals(window: Window) -> Iterator[Check]:
    """Check how often each field was refused: the first effect of a unit mistake."""
    if window.asked < FEWEST:
        return
    counts = count_refusals(window)
    for field in (*FEATURES, OTHER):
        yield _check_share(REFUSALS, f"{field} refused", counts.get(field, 0), window.asked)


def _sum_wines(window: Window, *by: str) -> "pd.Series[Any]":
    """Count the wines of refused requests by columns of their errors, each request once per group."""
    fields = window.refused["field"].map(lambda field: str(field).rpartition(".")[2])  # in a batch it is 17.alcohol
    errors = window.refused.assign(field=fields.where(fields.isin(FEATURES), OTHER))
    return errors.drop_duplicates([*by, "request_id"]).groupby([*by])["wines"].sum()


def _check_predictions(window: Window, predictions: PredictionProfile, size: int) -> Iterator[Check]:
    answers = _choose_answers(window)
    if answers is None:
        return
    grades, confidence = (answers[name].to_numpy("float64") for name in ("prediction", "confidence"))
    yield _check_distribution(PREDICTIONS, "predicted grades", predictions.predictions, size, grades)
    yield _check_distribution(PREDICTIONS, "confidence", predictions.confidence, size, confidence)


def _check_quality(window: Window, part: Profile, predictions: PredictionProfile) -> Iterator[Check]:
    labelled = distinct_answers(window.labelled)
    if len(labelled) < FEWEST_LABELS:
        return
    grades, predicted = (labelled[name].to_numpy("float64") for name in (TARGET, "prediction"))
    errors = grades - predicted
    yield _check_distribution(QUALITY, f"{RATERS}' grades", part.grades, part.wines, grades)
    by, p = _compare_means(errors, predictions.bias, part.wines)
    yield _measure(QUALITY, "bias", {"grades": (by, p, BIAS_FLOOR)})
    by, p = _compare_means(errors**2, predictions.squared_error, part.wines)
    worse = {"squared error on top": (by / predictions.squared_error[0], p / 2 if by > 0 else 1.0, ERROR_FLOOR)}
    yield _measure(QUALITY, "error", worse, signed=True)


def _check_coverage(window: Window, size: int, thresholds: Mapping[str, float]) -> Iterator[Check]:
    """Check that the coverage of the widest grade sets is not below the promised level: one-sided.

    In the cross-validation of `size` wines, which chose the threshold, the coverage equals the promised level.
    """
    labelled = distinct_answers(window.labelled)
    if len(labelled) < FEWEST_LABELS or not thresholds:
        return
    level, threshold = list(thresholds.items())[-1]
    covered = (find_answered_masses(labelled) <= threshold).astype("float64")
    if len(covered) < FEWEST_LABELS:
        return
    promised = float(level)
    by, p = _compare_means(covered, (promised, math.sqrt(promised * (1 - promised))), size)
    found = {"share missing": (-by, p / 2 if by < 0 else 1.0, COVERAGE_FLOOR)}
    yield _measure(QUALITY, "coverage", found, signed=True)


def _check_distribution(kind: str, name: str, reference: Marginal, size: int, values: np.ndarray) -> Check:
    found = compare(reference, size, values)
    return _measure(kind, name, {"KS": (*found["KS"], KS_FLOOR), "PSI": (*found["PSI"], PSI_FLOOR)})


def _check_share(kind: str, name: str, count: int, of: int) -> Check:
    """Check that a share is not above the usual one: one-sided, binomial."""
    return _measure(kind, name, {"share": (count / of, float(binom.sf(count - 1, of, USUAL_SHARE)), SHARE_FLOOR)})


def _measure(kind: str, name: str, found: dict[str, tuple[float, float, float]], signed: bool = False) -> Check:
    """Make a check from measures (effect, p-value, floor)."""
    figures = {measure: effect for measure, (effect, _, _) in found.items()}
    sizes = [(effect if signed else abs(effect), p, floor) for effect, p, floor in found.values()]
    p = min((p for size, p, floor in sizes if size >= floor), default=1.0)
    return Check(kind, name, figures, p, strength=max(size / floor for size, _, floor in sizes))


def _compare_means(values: np.ndarray, reference: tuple[float, float], size: int) -> tuple[float, float]:
    """The difference between a mean and the reference's, and its two-sided p-value (Welch, normal)."""
    mean, deviation = reference
    error = math.sqrt(values.var() / len(values) + deviation**2 / size)
    difference = float(values.mean()) - mean
    return difference, float(2 * norm.sf(abs(difference) / error)) if error else float(difference == 0)


def _choose_edges(shares: np.ndarray) -> list[int]:
    """Positions of the points that end a bin: at most MOST_BINS, each with at least SMALLEST_BIN of the reference."""
    smallest = max(SMALLEST_BIN, 0.9 / MOST_BINS) if len(shares) > MOST_BINS + 1 else SMALLEST_BIN
    edges: list[int] = []
    below = 0.0
    for position, share in enumerate(shares[:-1]):
        if share - below >= smallest and 1 - share >= smallest:
            edges.append(position)
            below = float(share)
    return [*edges, len(shares) - 1]


def _smooth(shares: np.ndarray, size: int) -> np.ndarray:
    """Add half a wine to each bin, so that an empty one has a logarithm."""
    return np.asarray((shares * size + 0.5) / (size + 0.5 * len(shares)))
