"""Intervals know how many wines there are: repeats of a wine are no new evidence, and many wines need little memory."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

from experiment_tracking.partitioned.boosting import evaluate_partitions
from experiment_tracking.registry.gate import judge_challenger
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.sources.partitions import LOT
from wine_data.split import Split, hash_to_unit
from wine_quality_training.bundle.bundle import Bundle
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.evaluate import LEAK_FREE, Evaluation, bootstrap_intervals, evaluate_predictions
from wine_quality_training.models import make_model

TIMES = 9  # that each wine is there


@pytest.fixture(scope="module")
def tree(twin_split: Split) -> Pipeline:
    wines = twin_split.train
    return make_model("DecisionTreeClassifier", seed=1).fit(feature_frame(wines), wines[TARGET])


def repeat(wines: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([wines] * TIMES, ignore_index=True)


def test_a_score_on_partitions_is_no_surer_by_repeats(tree: Pipeline, twin_split: Split) -> None:
    wines = twin_split.holdout.assign(**{LOT: hash_to_unit(twin_split.holdout)})
    once, often = (evaluate_partitions(tree, rows).score_on("holdout") for rows in (wines, repeat(wines)))
    assert often.metrics == pytest.approx(once.metrics)
    for measure, interval in once.intervals.items():
        assert often.intervals[measure] == pytest.approx(interval)


def test_the_gate_is_no_surer_by_repeats(tree: Pipeline, twin: WineData, twin_split: Split) -> None:
    holdout = twin_split.holdout
    table = holdout[["type", TARGET]].assign(prediction=tree.predict(feature_frame(holdout)))
    evaluation: Evaluation = evaluate_predictions("tree", LEAK_FREE, tree, {"cv": table, "holdout": table})
    bundle = Bundle(tree, describe_model(evaluation, twin, twin_split.train))
    once, often = (judge_challenger(bundle, None, wines).comparisons[0] for wines in (holdout, repeat(holdout)))
    assert (often.difference, often.bound) == pytest.approx((once.difference, once.bound))


def test_an_interval_of_many_wines_takes_little_memory() -> None:
    grades = np.random.default_rng(1).choice([5, 6, 7], 60_000)
    tracemalloc.start()
    try:
        bootstrap_intervals(grades, grades[::-1])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 150e6
