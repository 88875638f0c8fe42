"""What a verdict says, what it is made of, and which models are not judged at all."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier, DummyRegressor

from commands import BadInputError
from experiment_tracking.registry.gate import (
    ACCURACY_MARGIN,
    FEWEST_RECENT,
    HOLDOUT,
    LEVEL,
    MARGIN,
    RPS_MARGIN,
    Comparison,
    Terms,
    Verdict,
    check_models,
    hold_to_limits,
    judge_challenger,
    pick_unseen,
)
from experiment_tracking.registry.paired import ACCURACY, KAPPA, RPS, Difference
from experiment_tracking.registry.questions import Question, level_of
from tests.messages import naming
from wine_data.schema import FEATURES, TARGET
from wine_data.sources.load import WineData
from wine_data.split import Split, is_holdout
from wine_quality_training.bundle.bundle import Bundle
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.bundle.profile import profile_wines
from wine_quality_training.evaluate import AS_PUBLISHED, LEAK_FREE
from wine_quality_training.models import impute_before

BETTER = Comparison(HOLDOUT, 1060, KAPPA, 0.5716, 0.51, 0.0201, 0.0)
SURER = Comparison(HOLDOUT, 1060, RPS, 0.09, 0.101, -0.002, 0.01)
WORSE = Comparison("recent wines", 200, ACCURACY, 0.55, 0.6, -0.07, -0.03)


def test_a_verdict_says_what_was_compared_and_how_sure_it_is() -> None:
    verdict = Verdict("2", "1", (BETTER, SURER), Question(3, 0.01), ("the wines are few",))
    assert verdict.admitted
    assert verdict.sentences() == [
        "version 2 is better than version 1",
        "the 3rd challenger of this holdout: kappa is judged at level 1 %",
        "holdout, 1,060 wines: kappa 0.572 against 0.510, +0.062, at least +0.020 (must exceed 0)",
        "holdout: RPS 0.090 against 0.101, -0.011, at most -0.002 (must be below 0.01)",
        "the wines are few",
    ]
    refused = Verdict("2", "", (BETTER, WORSE))
    assert not refused.admitted
    assert refused.sentences()[0] == "version 2 is not shown to be better than the majority-class baseline"
    assert refused.sentences()[2:] == [
        "recent wines: accuracy 0.550 against 0.600, -0.050, at least -0.070 (must exceed -0.03)"
    ]
    same = Verdict("2", "1", ())
    assert not same.admitted
    assert same.sentences() == [
        "version 2 is the same model as version 1, by its digest: refused, without a comparison on the holdout"
    ]


@pytest.mark.parametrize(("measure", "beyond"), [(KAPPA, 0.001), (ACCURACY, 0.001), (RPS, -0.001)])
def test_a_bound_has_to_be_beyond_what_is_needed_not_at_it(measure: str, beyond: float) -> None:
    at = Comparison(HOLDOUT, 9, measure, 0.5, 0.4, -0.03, -0.03)
    assert not at.passed
    assert replace(at, bound=-0.03 + beyond).passed
    assert not replace(at, bound=-0.03 - beyond).passed


@pytest.mark.parametrize(
    ("measure", "level", "needed", "side"),
    [(KAPPA, 0.001, 0.0, -1), (ACCURACY, LEVEL, -ACCURACY_MARGIN, -1), (RPS, LEVEL, RPS_MARGIN, 1)],
)
def test_kappa_is_held_to_the_level_of_the_question_and_the_others_to_their_margins(
    measure: str, level: float, needed: float, side: int
) -> None:
    held = hold_to_limits(HOLDOUT, 9, Difference(measure, 0.5, -1e-14, 0.02), 0.001)
    assert held == Comparison(HOLDOUT, 9, measure, 0.5, 0.0, held.bound, needed)
    assert held.bound == pytest.approx(0.5 + side * NormalDist().inv_cdf(1 - level) * 0.02)
    assert str(held.rival) == "0.0"  # a baseline's kappa is not shown as -0.000
    assert hold_to_limits(HOLDOUT, 9, Difference(measure, 0.5, 0.123456, 0.02), 0.001).rival == 0.123456


def make_bundle(wines: pd.DataFrame, model: BaseEstimator, version: str = "1") -> Bundle:
    pipeline = impute_before(model).fit(wines[list(FEATURES)], wines[TARGET])
    known = {"data_source": "twin", "data_fingerprint": "", "metrics": {}, "ranges": {}, "answers": (), "files": {}}
    about = ModelMetadata("wine-quality", version, "run", "Dummy", LEAK_FREE, FEATURES, {}, **known)  # type: ignore[arg-type]
    return Bundle(pipeline, replace(about, profiles=profile_wines(wines, None)))


def test_what_cannot_be_compared_is_refused_by_its_version(twin_split: Split) -> None:
    champion = make_bundle(twin_split.train, DummyClassifier())
    challenger = make_bundle(twin_split.train, DummyClassifier(), "2")
    bare, leaking = (
        Bundle(challenger.pipeline, replace(challenger.metadata, **changes))
        for changes in ({"profiles": ()}, {"protocol": AS_PUBLISHED})
    )
    check_models(challenger, None)
    check_models(bare, champion)  # only the baseline is made of a profile
    with pytest.raises(BadInputError, match=naming("version 2 (Dummy)", "profile", "majority-class", "train it again")):
        check_models(bare, None)
    with pytest.raises(BadInputError, match=naming("version 2 (Dummy)", "regressor", "classifiers")):
        check_models(make_bundle(twin_split.train, DummyRegressor(), "2"), champion)
    for pair in ((leaking, champion), (champion, leaking)):
        with pytest.raises(BadInputError, match=naming("version 2 (Dummy)", f"fitted {AS_PUBLISHED}", "holdout")):
            judge_challenger(*pair, twin_split.holdout)


def test_recent_wines_count_where_they_are_in_the_holdout_and_repeats_once(twin: WineData) -> None:
    wines = twin.validation.drop_duplicates(list(FEATURES))
    unseen, seen = wines[is_holdout(wines)], wines[~is_holdout(wines)]
    enough = pd.concat([unseen.head(FEWEST_RECENT), seen.head(7), unseen.head(1)])
    assert len(pick_unseen(enough)) == FEWEST_RECENT + 1
    few = pd.concat([unseen.head(FEWEST_RECENT - 1), seen.head(7), unseen.head(1)])
    with pytest.raises(
        BadInputError, match=naming(f"{FEWEST_RECENT - 1} of {len(few)} recent", f"{FEWEST_RECENT} are")
    ):
        pick_unseen(few)
    with pytest.raises(BadInputError, match=naming("0 of 7 recent")):
        pick_unseen(seen.head(7))


def test_after_drift_the_old_holdout_comes_last_with_its_own_margin(twin: WineData, twin_split: Split) -> None:
    champion, challenger = (
        make_bundle(twin_split.train, DummyClassifier(strategy="stratified", random_state=version), str(version))
        for version in (1, 2)
    )
    recent = twin.validation[is_holdout(twin.validation)].head(300)
    terms = Terms(question=Question(4, level_of(4)))
    verdict = judge_challenger(challenger, champion, twin_split.holdout, recent, terms)
    assert (verdict.challenger, verdict.champion, verdict.question) == ("2", "1", terms.question)
    *new, old = verdict.comparisons
    alone = judge_challenger(challenger, champion, twin_split.holdout, terms=terms)
    distinct = len(recent.drop_duplicates(list(FEATURES)))
    assert [(one.scored_on, one.wines) for one in new] == [("recent wines", distinct)] * 3
    kappa = alone.comparisons[0]
    assert (alone.challenger, kappa.scored_on, kappa.wines) == ("2", "holdout", len(twin_split.holdout))
    assert old == replace(kappa, bound=old.bound, needed=-MARGIN)
    deviation = (kappa.difference - kappa.bound) / NormalDist().inv_cdf(1 - level_of(4))
    assert old.bound == pytest.approx(kappa.difference - NormalDist().inv_cdf(1 - LEVEL) * deviation)
    assert not np.isclose(old.bound, kappa.bound)
    baseline = judge_challenger(challenger, None, twin_split.holdout)
    assert (baseline.champion, baseline.question) == ("", Terms().question)
    assert kappa.rival != baseline.comparisons[0].rival == 0
