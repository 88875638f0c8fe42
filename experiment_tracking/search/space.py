"""Which models the search tries, and why these.

Train holds about 4,200 wines with twelve features and a target that is mostly noise: the best models
explain 40 % of it. Every range follows from that.

XGBoost, as a regressor (a classifier rounds its answer: seven trees a round would cost seven times as
much, and scored lower on these wines):

- depth 4 to 12: wines interact in many features; beyond 12 a leaf holds single wines.
- subsample and colsample down to 0.4 and 0.3: the trees of a noisy target should differ.
- min_child_weight 1 to 20 and reg_lambda 0.1 to 20: wines in a leaf, and how far it is trusted.
- no learning_rate: trials take RANKING, only the best is fitted at the slow RATE, with as many more rounds as that is
  slower. On the 24 draws below that is 0.71 to 1.1 of the rounds that the slow rate itself stops at, in eight of ten.
  On 24 draws and the published wines a trial took 0.29 of the time, the rank correlation of the losses was .63, where
  two seeds of the slow rate have .86; the best of the 24 was the same.

A forest of classifiers, random or extremely randomised; what it predicts is its expected grade:

- max_features 0.15 to 0.9: the published forests use all features (regressor) or 3 (classifier).
- min_samples_leaf 1 to 4: more than that forgets the near neighbours that help most here.
- the criterion. A trial takes 20 trees, and its loss is corrected for their number (trials.py).

The published space is wider (depth to 100, learning rates to 1) and its objective is the RMSE on the
validation file, whose wines are in the train file too: there the deepest and most exact memory wins.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from commands import BadInputError
from wine_quality_training.evaluate import AS_PUBLISHED, LEAK_FREE

if TYPE_CHECKING:  # a command answers --help before it loads what fits models
    from sklearn.base import BaseEstimator

REGRESSOR, CLASSIFIER, BOTH = "regressor", "classifier", "both"
TASKS = (REGRESSOR, CLASSIFIER)
XGBOOST, FOREST = "xgboost", "forest"
FAMILIES = (XGBOOST, FOREST)
ROUNDS, PATIENCE = 600, 40
RATE = 0.03  # slower gains nothing that 600 rounds allow
# XGBoost's parameters besides the values of a trial: to rank them, and as published.
RANKING = {"learning_rate": 0.1, "max_bin": 128, "n_estimators": 300, "early_stopping_rounds": 20}
PUBLISHED = {"n_estimators": 1000, "early_stopping_rounds": 50}
TRIALS = 32  # sixteen a family
BATCH = 4  # trials that are suggested together, without the losses of each other

# The first trial of each family: values known to do well on such wines, which the search has to beat.
# Choices are given by their index, as hyperopt counts them.
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

Space = dict[str, Any]  # a name for each of hyperopt's distributions
Values = dict[str, Any]  # one draw from them: plain numbers and names


@dataclass(frozen=True)
class Plan:
    """What a search is to do. `seed`, `trials`, `batch` and `protocol` decide what it finds on given wines.

    `task` is what is made of the winner: a regressor, a classifier, or both.
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
    """The space of the published search, over XGBoost alone."""
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
    """The families of a search in their order, each with its space and the values of its first trial, if given."""
    if plan.protocol == AS_PUBLISHED:
        return {XGBOOST: (describe_published_space(), {})}
    return {family: (describe_space(family), START[family]) for family in FAMILIES}


def make_forest(values: Values, seed: int, trees: int, cores: int) -> "BaseEstimator":
    """Make the unfitted forest of these values, a classifier."""
    from sklearn import ensemble

    others = {name: value for name, value in values.items() if name != "kind"}
    kind = {"random": ensemble.RandomForestClassifier, "extra": ensemble.ExtraTreesClassifier}[values["kind"]]
    return kind(trees, **others, random_state=seed, n_jobs=cores)
