"""The models that the search tries, and the reasons for their ranges.

Train has about 4,200 wines with twelve features and a target that is mostly noise: the best models
explain 40 % of its variance. Every range follows from that.

XGBoost, as a regressor; a classifier rounds its number (an XGBoost classifier has seven trees per round, so it
would cost seven times as much, and it scored lower on these wines):

- depth 4 to 12: many features interact; beyond 12 a leaf contains single wines.
- subsample and colsample down to 0.4 and 0.3: with a noisy target, trees should differ.
- min_child_weight 1 to 20 and reg_lambda 0.1 to 20: the wines per leaf, and the shrinkage of its value.
- no learning_rate: trials use RANKING. Only the best is fitted at the slow RATE, with more rounds by the ratio of the
  rates. In eight of ten of the 24 draws below, this is 0.71 to 1.1 of the rounds at which the slow rate itself stops.
  On 24 draws and the published wines, a trial took 0.29 of the time. The rank correlation of the losses was .63; two
  seeds of the slow rate have .86. The best of the 24 was the same.

A forest of classifiers, random or extremely randomised; it predicts its expected grade:

- max_features 0.15 to 0.9: the published forests use all features (regressor) or 3 (classifier).
- min_samples_leaf 1 to 4: larger leaves lose the near neighbours, which help most here.
- the criterion. A trial takes 15 trees, and its loss is corrected for their number (trials.py).

The published space is wider (depth to 100, learning rates to 1). Its objective is the RMSE on the
validation file, whose wines are also in the train file, so the deepest trees win by memory.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from commands import BadInputError
from wine_quality_training.evaluate import AS_PUBLISHED, LEAK_FREE

if TYPE_CHECKING:  # --help answers before the modelling libraries are loaded
    from sklearn.base import BaseEstimator

REGRESSOR, CLASSIFIER, BOTH = "regressor", "classifier", "both"
TASKS = (REGRESSOR, CLASSIFIER)
XGBOOST, FOREST = "xgboost", "forest"
FAMILIES = (XGBOOST, FOREST)
ROUNDS, PATIENCE = 600, 40
RATE = 0.03  # slower rates gain nothing within 600 rounds
# XGBoost's parameters besides a trial's values: for ranking trials, and as published.
RANKING = {"learning_rate": 0.1, "max_bin": 128, "n_estimators": 300, "early_stopping_rounds": 20}
PUBLISHED = {"n_estimators": 1000, "early_stopping_rounds": 50}
TRIALS = 32  # sixteen per family
BATCH = 4  # trials that are suggested together, without each other's losses

# The first trial of each family: values that are known to be good on such wines, as a baseline for the search.
# Choices are given by their index in hyperopt.
START: dict[str, dict[str, float]] = {
    XGBOOST: {
        "max_depth": 8,
        "subsample": 0.7,
        "colsample_bytree": 0.5,
        "min_child_weight": 1.0,
        "reg_lambda": 1.0,
    },
    FOREST: {"kind": 1, "max_features": 0.32, "min_samples_leaf": 1, "criterion": 1},
}

Space = dict[str, Any]  # hyperopt's distributions by name
Values = dict[str, Any]  # one draw from a space: plain numbers and names


@dataclass(frozen=True)
class Plan:
    """The settings of a search. On given wines, `seed`, `trials`, `batch` and `protocol` decide its result.

    `task` is what the winner becomes: a regressor, a classifier, or both.
    """

    protocol: str = LEAK_FREE
    task: str = BOTH
    trials: int = TRIALS
    seed: int = 42
    minutes: float | None = None
    workers: int = 1
    dask: str = ""
    batch: int = BATCH
    resume: bool = False

    def __post_init__(self) -> None:
        if self.trials < 1 or self.workers < 1 or self.batch < 1 or (self.minutes is not None and self.minutes <= 0):
            raise BadInputError("--trials, --workers, --batch and --minutes must be more than 0")
        if self.protocol == AS_PUBLISHED and self.task not in (BOTH, REGRESSOR):
            raise BadInputError("the published search tunes a regressor: leave --task out, or use --task regressor")


def describe_space(family: str) -> Space:
    """The space that the leak-free search draws from."""
    from hyperopt import hp
    from hyperopt.pyll import scope

    if family == XGBOOST:
        return {
            "max_depth": scope.int(hp.quniform("max_depth", 4, 12, 1)),
            "subsample": hp.uniform("subsample", 0.4, 1.0),
            "colsample_bytree": hp.uniform("colsample_bytree", 0.3, 1.0),
            "min_child_weight": hp.loguniform("min_child_weight", 0.0, np.log(20)),
            "reg_lambda": hp.loguniform("reg_lambda", np.log(0.1), np.log(20)),
        }
    return {
        "kind": hp.choice("kind", ["random", "extra"]),
        "max_features": hp.uniform("max_features", 0.15, 0.9),
        "min_samples_leaf": scope.int(hp.quniform("min_samples_leaf", 1, 4, 1)),
        "criterion": hp.choice("criterion", ["gini", "entropy"]),
    }


def describe_published_space() -> Space:
    """The space of the published search, which has only XGBoost."""
    from hyperopt import hp
    from hyperopt.pyll import scope

    return {
        "max_depth": scope.int(hp.quniform("max_depth", 4, 100, 1)),
        "learning_rate": hp.loguniform("learning_rate", -3, 0),
        "reg_alpha": hp.loguniform("reg_alpha", -5, -1),
        "reg_lambda": hp.loguniform("reg_lambda", -6, -1),
        "min_child_weight": hp.loguniform("min_child_weight", -1, 3),
    }


def list_spaces(plan: Plan) -> dict[str, tuple[Space, dict[str, float]]]:
    """The families of a search in order, each with its space and the values of its first trial, if given."""
    if plan.protocol == AS_PUBLISHED:
        return {XGBOOST: (describe_published_space(), {})}
    return {family: (describe_space(family), START[family]) for family in FAMILIES}


def make_forest(values: Values, seed: int, trees: int, cores: int) -> "BaseEstimator":
    """Make an unfitted forest classifier with these values."""
    from sklearn import ensemble

    others = {name: value for name, value in values.items() if name != "kind"}
    kind = {"random": ensemble.RandomForestClassifier, "extra": ensemble.ExtraTreesClassifier}[values["kind"]]
    return kind(trees, **others, random_state=seed, n_jobs=cores)
