"""What a benchmark on the published rows of these wines measures.

Public copies (UCI, Kaggle, OpenML) have 6,497 rows, of which 1,177 repeat another row. Benchmarks split them at random,
so about a fifth of the scored rows are also in the part that the model was fitted on. A good score is therefore partly
memory, and a model that remembers well ranks above one that generalises better. This module scores the same models both
ways: on the rows, split at random, and on the distinct wines in grouped folds, as everywhere else in this project.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wine_data.schema import TARGET, feature_frame
from wine_data.split import distinct_wines, fold_wines
from wine_quality_training.evaluate import measure_predictions
from wine_quality_training.models import impute_before

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator

    Folds = Sequence[tuple[np.ndarray, np.ndarray]]

FOLDS = 3  # with five, the kernel would take twice as long
TREES = 100


@dataclass(frozen=True)
class CopyScore:
    """The RMSE of one model, in grades: on the rows of a copy, split at random, and on distinct wines."""

    model: str
    copy: float
    distinct: float


@dataclass(frozen=True)
class CopyBenchmark:
    """How many rows and distinct wines a copy has, and the score of each model."""

    rows: int
    wines: int
    scores: tuple[CopyScore, ...]

    def rank(self, column: str) -> list[str]:
        """The models from best to worst by the score "copy" or "distinct"."""
        return [score.model for score in sorted(self.scores, key=lambda score: float(getattr(score, column)))]

    def sentence(self) -> str:
        """Compare the two ways of scoring, for people."""
        before, after = self.rank("copy"), self.rank("distinct")
        gaps = [score.distinct - score.copy for score in self.scores]
        return (
            f"{self.rows - self.wines:,} of the {self.rows:,} rows repeat another one. On distinct wines RMSE is "
            f"{min(gaps):.3f} to {max(gaps):.3f} higher. By the rows the best are {before[0]} and {before[1]}; "
            f"{after[0]}, number {before.index(after[0]) + 1} of {len(before)} there, is the best on distinct wines."
        )


def compare_copies(rows: "pd.DataFrame", seed: int, folds: int = FOLDS) -> CopyBenchmark:
    """Cross-validate each of make_regressors on the rows of a copy and on its distinct wines, in about 20 s."""
    from sklearn.model_selection import KFold

    wines = distinct_wines(rows)
    random = list(KFold(folds, shuffle=True, random_state=seed).split(rows))
    grouped = fold_wines(wines, folds, seed)
    scores = []
    for name, make in make_regressors(seed).items():
        scores.append(CopyScore(name, _score(make, rows, random), _score(make, wines, grouped)))
    return CopyBenchmark(len(rows), len(wines), tuple(scores))


def make_regressors(seed: int) -> "dict[str, Callable[[], BaseEstimator]]":
    """Unfitted models by name: those that benchmarks on these wines use, and the kernel."""
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PowerTransformer, StandardScaler
    from xgboost import XGBRegressor

    from wine_quality_training.estimators import KernelRegressor

    trees = {"n_estimators": TREES, "random_state": seed, "n_jobs": -1}
    boosting = {"n_estimators": 150, "max_depth": 8, "learning_rate": 0.08, "subsample": 0.8, "colsample_bytree": 0.6}
    return {
        "extra trees": lambda: ExtraTreesRegressor(**trees),
        "random forest": lambda: RandomForestRegressor(max_features=1 / 3, **trees),
        "XGBoost": lambda: XGBRegressor(random_state=seed, n_jobs=1, **boosting),
        "20 neighbours": lambda: make_pipeline(StandardScaler(), KNeighborsRegressor(20, weights="distance")),
        "kernel": lambda: make_pipeline(PowerTransformer(), KernelRegressor()),
    }


def _score(make: "Callable[[], BaseEstimator]", wines: "pd.DataFrame", folds: "Folds") -> float:
    """The RMSE over all folds."""
    X, y = feature_frame(wines), wines[TARGET].to_numpy("float64")
    predictions = np.empty(len(y))
    for fit_on, score_on in folds:
        predictions[score_on] = impute_before(make()).fit(X.iloc[fit_on], y[fit_on]).predict(X.iloc[score_on])
    return measure_predictions(y, predictions)["rmse"]
