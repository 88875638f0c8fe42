"""Estimators that scikit-learn does not have, and the blend made with them.

They were chosen by repeated grouped cross-validation in train of the published wines. Trees and the kernel make errors
on different wines, so the mean of their probabilities is better than either. A third member, XGBoost, gained nothing.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import norm
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.ensemble import VotingClassifier
from sklearn.gaussian_process.kernels import Matern
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data

from wine_quality_training.bundle.decision import DecisionRule, decide_grades
from wine_quality_training.evaluate import measure_predictions, spread_probabilities

ROWS_AT_ONCE = 128  # the kernel between these rows and 4,241 wines takes 4 MB, which the processor's cache holds
KERNEL_WINES = 8000  # the most to fit on: memory is 24 bytes times the square of their number, 1.5 GB
KERNEL_SPREAD = 0.5  # in grades; the standard deviation that is best calibrated in a blend with a forest
INNER_FOLDS = 3
SLOPES = tuple(round(1 + step / 20, 2) for step in range(17))  # 1 to 1.8
ACCURACY_MARGIN = 0.01


class KernelRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Kernel ridge regression on standardized features, with a Matérn kernel of order 1/2: exp(-distance / length).

    It predicts the mean of a Gaussian process with noise `ridge`. Unlike scikit-learn's, it does not keep the Cholesky
    factor of 4,241 x 4,241 numbers for the standard deviation. Its fitted attributes are the same as in old pickles.
    """

    def __init__(self, length: float = 5.0, ridge: float = 0.5) -> None:
        """Set the kernel's length, in standard deviations, and the ridge added to its diagonal."""
        self.length = length
        self.ridge = ridge

    def fit(self, X: Any, y: Any) -> Self:
        """Solve for one weight per wine; time grows with the cube of their number, 0.8 s for 4,241.

        KernelRidge finds the same weights in twice the time, because it also computes a condition number.
        """
        X, y = validate_data(self, X, y, y_numeric=True)
        scaler = StandardScaler().fit(X)
        self.offsets_, self.scales_, self.mean_ = scaler.mean_, scaler.scale_, float(y.mean())
        self.wines_ = scaler.transform(X)
        kernel = Matern(self.length, nu=0.5)(self.wines_)
        np.fill_diagonal(kernel, 1 + self.ridge)
        factor = cho_factor(kernel, lower=True, overwrite_a=True, check_finite=False)
        self.weights_ = cho_solve(factor, y - self.mean_)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict a number per wine."""
        check_is_fitted(self)
        wines = (validate_data(self, X, reset=False) - self.offsets_) / self.scales_
        kernel = Matern(self.length, nu=0.5)
        batches = gen_batches(len(wines), ROWS_AT_ONCE)
        return np.concatenate([self.mean_ + kernel(wines[rows], self.wines_) @ self.weights_ for rows in batches])


class GradesFromNumbers(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier made of a regressor: it predicts the grade nearest to the regressor's number.

    The probability of a grade is the mass, under a normal distribution around the number, of all values
    nearest to that grade. `spread` is the standard deviation: the RMSE expected of the regressor on
    unseen wines. It changes the probabilities, but hardly ever the likeliest grade.
    """

    def __init__(self, regressor: BaseEstimator, spread: float = 0.65) -> None:
        """Take an unfitted regressor and the spread, in grades."""
        self.regressor = regressor
        self.spread = spread

    def fit(self, X: Any, y: Any) -> Self:
        """Fit a clone of the regressor on the grades as numbers."""
        self.classes_ = np.unique(y)
        self.regressor_ = clone(self.regressor).fit(X, np.asarray(y, dtype=float))
        return self

    @classmethod
    def of_fitted(cls, regressor: BaseEstimator, grades: Sequence[int], spread: float) -> Self:
        """Make a fitted classifier from a fitted regressor and the grades that it was fitted on."""
        model = cls(regressor, spread)
        model.classes_, model.regressor_ = np.unique(grades), regressor
        return model

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the grades in classes_, shape (wines, grades)."""
        check_is_fitted(self)
        bounds = (self.classes_[:-1] + self.classes_[1:]) / 2
        numbers = np.asarray(self.regressor_.predict(X), dtype=float)
        below = norm.cdf((bounds - numbers[:, None]) / self.spread)
        return np.diff(below, axis=1, prepend=0.0, append=1.0)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the likeliest grade of each wine."""
        likeliest: np.ndarray = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return likeliest


class ExpectedGrade(RegressorMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor made of a classifier: the mean grade under its probabilities."""

    def __init__(self, classifier: BaseEstimator) -> None:
        """Take an unfitted classifier."""
        self.classifier = classifier

    def fit(self, X: Any, y: Any) -> Self:
        """Fit a clone of the classifier."""
        self.classifier_ = clone(self.classifier).fit(X, y)
        return self

    @classmethod
    def of_fitted(cls, classifier: BaseEstimator) -> Self:
        """Make a fitted regressor from a fitted classifier."""
        model = cls(classifier)
        model.classifier_ = classifier
        return model

    def predict(self, X: Any) -> np.ndarray:
        """Predict a number per wine."""
        check_is_fitted(self)
        expected: np.ndarray = self.classifier_.predict_proba(X) @ self.classifier_.classes_
        return expected


class OrdinalClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that uses the order of the grades: a DecisionRule turns its expected grade into a prediction.

    The rule's slope has the lowest loss, 1 - (accuracy + kappa) / 2, on inner folds, among the slopes whose accuracy is
    at most .01 below that of slope 1. The probabilities are those of `classifier`. Seven free thresholds were no better
    than one slope.
    """

    def __init__(self, classifier: BaseEstimator) -> None:
        """Take an unfitted classifier."""
        self.classifier = classifier

    def fit(self, X: Any, y: Any) -> Self:
        """Choose the slope on inner folds, then fit a clone of the classifier on all wines."""
        X, y = np.asarray(X), np.asarray(y)
        self.classes_ = np.unique(y)
        _, wine = np.unique(X, axis=0, return_inverse=True)  # repeats of a wine belong to one fold
        folds = GroupKFold(INNER_FOLDS, shuffle=True, random_state=0).split(X, groups=wine)
        probabilities = np.zeros((len(y), len(self.classes_)))
        for fit_on, score_on in folds:
            inner = clone(self.classifier).fit(X[fit_on], y[fit_on])
            probabilities[score_on] = spread_probabilities(inner, X[score_on], self.classes_)
        self.rule_ = choose_rule(probabilities, self.classes_, y)
        self.classifier_ = clone(self.classifier).fit(X, y)
        return self

    @classmethod
    def of_fitted(cls, classifier: BaseEstimator, rule: DecisionRule) -> Self:
        """Make a fitted classifier from a fitted one and a rule that was chosen elsewhere."""
        model = cls(classifier)
        model.classes_, model.classifier_, model.rule_ = classifier.classes_, classifier, rule
        return model

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the grades in classes_, shape (wines, grades)."""
        check_is_fitted(self)
        probabilities: np.ndarray = self.classifier_.predict_proba(np.asarray(X))
        return probabilities

    def predict(self, X: Any) -> np.ndarray:
        """Predict the grade of each wine."""
        decided, _ = decide_grades(self.predict_proba(X), self.classes_, self.rule_.find_bounds(self.classes_))
        grades: np.ndarray = self.classes_[decided]
        return grades


def choose_rule(probabilities: np.ndarray, grades: np.ndarray, true: np.ndarray, smooth: bool = False) -> DecisionRule:
    """The rule with the least loss on wines with these probabilities and true grades.

    `smooth` fits a parabola to the measures of all slopes, so that the chance result of one slope matters less. On
    seven splits of train of the published wines, the slopes then varied by .033, not .058. A blend with the kernel had
    kappa .578 and accuracy .579, not .571 and .581.
    """
    mean = float(true.mean())
    rules = [DecisionRule(mean, slope) for slope in SLOPES]
    decided = [decide_grades(probabilities, grades, rule.find_bounds(grades))[0] for rule in rules]
    measured = [measure_predictions(true, grades[each]) for each in decided]
    measures = np.array([[each["accuracy"], each["kappa"]] for each in measured])
    if smooth:
        powers = np.vander(SLOPES, 3)
        measures = powers @ np.linalg.lstsq(powers, measures)[0]
    allowed = np.flatnonzero(measures[:, 0] >= measures[0, 0] - ACCURACY_MARGIN)
    return rules[int(allowed[measures[allowed].sum(axis=1).argmax()])]


def make_kernel_grades() -> GradesFromNumbers:
    """The kernel as an unfitted classifier, after a power transform that makes skewed measurements nearly normal."""
    return GradesFromNumbers(make_pipeline(PowerTransformer(), KernelRegressor()), spread=KERNEL_SPREAD)


def blend_grades(forest: BaseEstimator) -> VotingClassifier:
    """The mean of the probabilities of a forest and of the kernel."""
    return VotingClassifier([("forest", forest), ("kernel", make_kernel_grades())], voting="soft")
