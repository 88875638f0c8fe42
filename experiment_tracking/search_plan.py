"""What a search is to do: its protocol, its task, how much of it, and where it runs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from commands import BadInputError
from experiment_tracking.search_space import (
    FAMILIES,
    REGRESSOR,
    START,
    TASKS,
    XGBOOST,
    Study,
    describe_published_space,
    describe_space,
)
from wine_quality_training.evaluate import AS_PUBLISHED, LEAK_FREE

if TYPE_CHECKING:
    from experiment_tracking.optimiser import Optimiser

TRIALS = 32  # eight a study
BATCH = 4  # trials that know nothing of each other
BOTH = "both"


@dataclass(frozen=True)
class Plan:
    """What a search is to do. All but `minutes`, `workers` and `dask` decide what it finds on given wines."""

    protocol: str = LEAK_FREE
    task: str = BOTH
    trials: int = TRIALS
    seed: int = 42
    minutes: float | None = None
    workers: int = 1
    dask: str = ""
    batch: int = BATCH

    def list_studies(self) -> list[Study]:
        """What is tuned; the trials are dealt out to these in turn."""
        if self.protocol == AS_PUBLISHED:
            return [Study(REGRESSOR, XGBOOST)]
        tasks = TASKS if self.task == BOTH else (self.task,)
        return [Study(task, family) for task in tasks for family in FAMILIES]

    def make_optimisers(self) -> "dict[Study, Optimiser]":
        """An optimiser for each study, in the space of the protocol."""
        from experiment_tracking.optimiser import TreeParzenOptimiser

        if self.protocol == AS_PUBLISHED:
            return {study: TreeParzenOptimiser(describe_published_space(), self.seed) for study in self.list_studies()}
        return {
            study: TreeParzenOptimiser(describe_space(study), self.seed, START[study.task, study.family])
            for study in self.list_studies()
        }

    def require_sense(self) -> None:
        """Raise BadInputError where the plan makes no sense."""
        if self.trials < 1 or self.workers < 1 or self.batch < 1 or (self.minutes is not None and self.minutes <= 0):
            raise BadInputError("--trials, --workers, --batch and --minutes must be more than 0")
        if self.protocol == AS_PUBLISHED and self.task not in (BOTH, REGRESSOR):
            raise BadInputError("the published search is over a regressor: leave --task out, or say --task regressor")
