"""Measures of probabilities."""

import numpy as np
import pytest

from wine_quality_training.measures import calibration_error, rank_probability_score

pytestmark = pytest.mark.fast

GRADES = np.array([5, 6, 7])


def test_a_probability_far_off_scores_worse_than_a_near_one() -> None:
    true = np.array([5])
    certain, near, far = (np.array([each]) for each in ([1.0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]))
    assert rank_probability_score(certain, GRADES, true) == 0
    assert rank_probability_score(near, GRADES, true) == pytest.approx(0.25)
    assert rank_probability_score(far, GRADES, true) == pytest.approx(0.5)  # it is wrong at both thresholds


def test_the_calibration_error_is_the_gap_between_confidence_and_hits_in_bins_of_equal_counts() -> None:
    confidence, hits = np.array([0.9, 0.5, 0.9, 0.5]), np.array([True, False, True, True])
    assert calibration_error(confidence, hits, bins=2) == pytest.approx((0.0 + 0.1) / 2)
    assert calibration_error(confidence, hits, bins=1) == pytest.approx(0.05)
