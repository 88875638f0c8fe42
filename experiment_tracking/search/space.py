"""Which models the search tries, and why these.

Train holds about 4,200 wines with twelve features and a target that is mostly noise: the best models
explain 40 % of it. Every range follows from that.

XGBoost, as a regressor (a classifier rounds its answer: seven trees a round would cost seven times as
much, and scored lower on these wines):

- depth 4 to 12: wines interact in many features; beyond 12 a leaf holds single wines.
- learning_rate 0.02 to 0.15: slower gains nothing that 600 rounds allow, faster overshoots within ten.
- subsample and colsample down to 0.4 and 0.3: the trees of a noisy target should differ.
- min_child_weight 1 to 20 and reg_lambda 0.1 to 20: wines in a leaf, and how far it is trusted.

A forest, random or extremely randomised, as regressor or classifier:

- max_features 0.15 to 0.9: the published forests use all features (regressor) or 3 (classifier).
- min_samples_leaf 1 to 4: more than that forgets the near neighbours that help most here.
- the criterion, for a classifier. A trial takes 30 trees, which rank the same values as 100 do.

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
PUBLISHED_ROUNDS, PUBLISHED_PATIENCE = 1000, 50
TRIALS = 32  # eight a study
BATCH = 4  # trials that are suggested together, without the losses of each other

# The first trial of each study: values known to do well on such wines, which the search has to beat.
# Choices are given by their index, as hyperopt counts them.
_START_BOOSTER = {
    "max_depth": 8,
    "learning_rate": 0.03,
    "subsample": 0.7,
    "colsample_bytree": 0.5,
    "min_child_weight": 1.0,
    "reg_lambda": 1.0,
}
START: dict[tuple[str, str], dict[str, float]] = {
    (REGRESSOR, XGBOOST): _START_BOOSTER,
    (CLASSIFIER, XGBOOST): _START_BOOSTER,
    (REGRESSOR, FOREST): {"kind": 1, "max_features": 0.6, "min_samples_leaf": 1},
    (CLASSIFIER, FOREST): {"kind": 1, "max_features": 0.35, "min_samples_leaf": 1, "criterion": 1},
}

Space = dict[str, Any]  # a name for each of hyperopt's distributions
Values = dict[str, Any]  # one draw from them: plain numbers and names


@dataclass(frozen=True)
class Study:
    """One model family tuned for one task."""

    task: str
    family: str

    @property
    def name(self) -> str:
        """As in "regressor xgboost"."""
        return f"{self.task} {self.family}"


@dataclass(frozen=True)
class Plan:
    """What a search is to do. All but `minutes`, `workers`, `dask` and `resume` decide what it finds on given wines."""

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
            raise BadInputError("the published search is over a regressor: leave --task out, or say --task regressor")


def describe_space(study: Study) -> Space:
    """The space that the leak-free search draws from."""
    from hyperopt import hp
    from hyperopt.pyll import scope

    if study.family == XGBOOST:
        return {
            "max_depth": scope.int(hp.quniform("max_depth", 4, 12, 1)),
            "learning_rate": hp.loguniform("learning_rate", np.log(0.02), np.log(0.15)),
            "subsample": hp.uniform("subsample", 0.4, 1.0),
            "colsample_bytree": hp.uniform("colsample_bytree", 0.3, 1.0),
            "min_child_weight": hp.loguniform("min_child_weight", 0.0, np.log(20)),
            "reg_lambda": hp.loguniform("reg_lambda", np.log(0.1), np.log(20)),
        }
    forest = {
        "kind": hp.choice("kind", ["random", "extra"]),
        "max_features": hp.uniform("max_features", 0.15, 0.9),
        "min_samples_leaf": scope.int(hp.quniform("min_samples_leaf", 1, 4, 1)),
    }
    return forest | ({"criterion": hp.choice("criterion", ["gini", "entropy"])} if study.task == CLASSIFIER else {})


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


def list_spaces(plan: Plan) -> dict[Study, tuple[Space, dict[str, float]]]:
    """The studies of a search in their order, each with its space and the values of its first trial, if given."""
    if plan.protocol == AS_PUBLISHED:
        return {Study(REGRESSOR, XGBOOST): (describe_published_space(), {})}
    tasks = TASKS if plan.task == BOTH else (plan.task,)
    studies = [Study(task, family) for task in tasks for family in FAMILIES]
    return {study: (describe_space(study), START[study.task, study.family]) for study in studies}


def make_forest(study: Study, values: Values, seed: int, trees: int, cores: int) -> "BaseEstimator":
    """Make the unfitted forest of these values."""
    from sklearn import ensemble

    others = {name: value for name, value in values.items() if name != "kind"}
    kind = {"random": "RandomForest", "extra": "ExtraTrees"}[values["kind"]]
    return getattr(ensemble, kind + study.task.capitalize())(trees, **others, random_state=seed, n_jobs=cores)
