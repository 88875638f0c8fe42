"""The decision: from the probabilities of the grades to the grade that is answered."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

from wine_data.schema import TARGET, feature_frame
from wine_data.split import Split
from wine_quality_training.bundle.decision import DecisionRule, decide_grades
from wine_quality_training.estimators import OrdinalClassifier, choose_rule
from wine_quality_training.evaluate import measure_predictions

pytestmark = pytest.mark.fast

GRADES = np.array([4.0, 5.0, 6.0, 8.0])


def decide(row: list[float], rule: DecisionRule | None) -> tuple[object, object]:
    decided, expected = decide_grades(np.array([row]), GRADES, rule.find_bounds(GRADES) if rule else None)
    return float(GRADES[decided[0]]), float(expected[0])


def test_without_a_rule_the_likeliest_grade_is_answered_and_of_equals_the_lowest() -> None:
    assert decide([0.1, 0.4, 0.4, 0.1], None) == pytest.approx((5, 5.6))


@pytest.mark.parametrize(
    ("slope", "row", "grade"),
    [
        (1.0, [0.3, 0.4, 0.0, 0.3], 6),  # expected 5.6, though 5 is likelier
        (1.0, [0.0, 0.5, 0.5, 0.0], 6),  # 5.5 lies between two grades: the higher one
        (2.0, [0.0, 0.8, 0.2, 0.0], 4),  # 5.2 is stretched to 4.4
        (1.0, [0.0, 0.0, 0.5, 0.5], 8),  # of 6 and 8 the bound is 7
        (9.0, [1.0, 0.0, 0.0, 0.0], 4),  # stretched beyond the scale
    ],
)
def test_a_rule_answers_the_grade_nearest_to_the_stretched_expected_grade(
    slope: float, row: list[float], grade: int
) -> None:
    assert decide(row, DecisionRule(6.0, slope))[0] == grade


def test_sums_in_another_order_decide_alike() -> None:
    rule, row = DecisionRule(5.0, 1.0), np.array([0.0, 0.5, 0.5, 0.0])
    nearly = row + np.array([0.0, 3e-8, -3e-8, 0.0])  # as 32-bit numbers might come out
    assert decide(row.tolist(), rule) == decide(nearly.tolist(), rule)


def test_a_rule_says_what_it_does() -> None:
    assert DecisionRule(5.8, 1.2).sentence() == "the grade nearest to 5.8 + 1.2 x (expected quality - 5.8)"


def test_the_slope_of_the_least_loss_is_chosen_within_what_accuracy_may_lose() -> None:
    random = np.random.default_rng(0)
    true = random.choice([5, 6, 7], size=2000, p=[0.3, 0.5, 0.2])
    near = np.abs(true[:, None] - np.array([5, 6, 7]))
    probabilities = np.exp(-near + random.normal(scale=0.8, size=near.shape))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    grades = np.array([5, 6, 7])

    def measure(rule: DecisionRule) -> dict[str, float]:
        return measure_predictions(true, grades[decide_grades(probabilities, grades, rule.find_bounds(grades))[0]])

    chosen, plain = choose_rule(probabilities, grades, true), DecisionRule(float(true.mean()), 1.0)
    assert chosen.slope > 1
    assert measure(chosen)["kappa"] > measure(plain)["kappa"]
    assert measure(chosen)["accuracy"] >= measure(plain)["accuracy"] - 0.01


def test_smoothed_slopes_hang_less_on_which_wines_they_are_chosen_on() -> None:
    random, grades = np.random.default_rng(0), np.array([5, 6, 7])
    plain, smooth = [], []
    for _ in range(20):
        true = random.choice(grades, size=1000, p=[0.3, 0.5, 0.2])
        near = np.abs(true[:, None] - grades)
        probabilities = np.exp(-near + random.normal(scale=0.8, size=near.shape))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        plain.append(choose_rule(probabilities, grades, true).slope)
        smooth.append(choose_rule(probabilities, grades, true, smooth=True).slope)
    assert np.std(smooth) < np.std(plain)
    assert abs(np.mean(smooth) - np.mean(plain)) < 0.1


def test_an_ordinal_forest_agrees_better_than_the_same_forest(twin_split: Split) -> None:
    X, y = feature_frame(twin_split.train), twin_split.train[TARGET]
    unseen, grades = feature_frame(twin_split.holdout), twin_split.holdout[TARGET].to_numpy()
    forest = ExtraTreesClassifier(30, max_features=0.5, random_state=1)
    ordinal = OrdinalClassifier(forest).fit(X, y)
    plain = clone(forest).fit(X.to_numpy(), y)
    np.testing.assert_array_equal(ordinal.predict_proba(unseen), plain.predict_proba(unseen.to_numpy()))
    ours, theirs = (measure_predictions(grades, model.predict(unseen.to_numpy())) for model in (ordinal, plain))
    assert ours["kappa"] > theirs["kappa"]
    assert set(ordinal.predict(unseen)) <= set(ordinal.classes_)


def test_a_model_that_knows_one_grade_answers_it() -> None:
    X = np.arange(18.0).reshape(9, 2)
    assert OrdinalClassifier(DummyClassifier()).fit(X, np.full(9, 6)).predict(X[:1]).tolist() == [6]


def test_any_classifier_with_probabilities_can_be_asked_for_its_expected_grade(twin_split: Split) -> None:
    X, y = feature_frame(twin_split.train).to_numpy(), twin_split.train[TARGET]
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    model = OrdinalClassifier(LogisticRegression(max_iter=300)).fit(scaled, y)
    assert model.score(scaled, y) > 0.5
