"""The seam between a search and what suggests its next values."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from hyperopt import JOB_STATE_DONE, STATUS_FAIL, STATUS_OK, Domain, Trials, space_eval, tpe

from experiment_tracking.search.space import Space, Values

RANDOM_DRAWS = 5  # before a model of the losses is asked; hyperopt's 20 suit longer searches


class Optimiser(Protocol):
    """Asked for a batch of values, then given their losses, in turn.

    The same seed and the same losses must lead to the same values: --resume asks again for what a
    killed search had been given.
    """

    def suggest(self, count: int) -> list[Values]:
        """Suggest the values of the next `count` trials."""
        ...

    def tell(self, losses: Sequence[float | None]) -> None:
        """Learn how the trials suggested last went, in their order: the lower the better, None for a failure."""
        ...


class TreeParzenOptimiser:
    """Hyperopt's tree of Parzen estimators (TPE), through its own ask and tell.

    Once it has a model, hyperopt suggests one trial a call whatever the number asked for, so it is
    asked once a trial. Those that wait for their result count as bad meanwhile, which keeps the
    trials of a batch apart.
    """

    def __init__(self, space: Space, seed: int, start: Mapping[str, float] | None = None) -> None:
        """Take the space, the seed that decides, with the losses, every suggestion, and the first values if given.

        In `start` a choice is given by its index in the list.
        """
        self._space, self._seed, self._start = space, seed, start
        self._domain = Domain(lambda values: None, space)
        self._trials = Trials()
        self._waiting: list[int] = []

    def suggest(self, count: int) -> list[Values]:
        """Suggest the values of the next `count` trials."""
        self._waiting = self._trials.new_trial_ids(count)
        return [self._suggest_one(trial_id) for trial_id in self._waiting]

    def tell(self, losses: Sequence[float | None]) -> None:
        """Learn how the trials suggested last went."""
        told = dict(zip(self._waiting, losses, strict=True))
        for document in self._trials.trials:
            if document["tid"] in told:
                loss = told[document["tid"]]
                document["result"] = {"status": STATUS_FAIL} if loss is None else {"status": STATUS_OK, "loss": loss}
                document["state"] = JOB_STATE_DONE
        self._trials.refresh()

    def _suggest_one(self, trial_id: int) -> Values:
        documents = self._place_start(trial_id) if trial_id == 0 and self._start else self._ask(trial_id)
        self._trials.insert_trial_docs(documents)
        self._trials.refresh()
        drawn = {name: values[0] for name, values in documents[0]["misc"]["vals"].items() if values}
        return {name: _make_plain(value) for name, value in space_eval(self._space, drawn).items()}

    def _ask(self, trial_id: int) -> list[Any]:
        seed = int(np.random.SeedSequence([self._seed, trial_id]).generate_state(1)[0])
        return list(
            tpe.suggest([trial_id], self._domain, self._trials, seed, n_startup_jobs=RANDOM_DRAWS, verbose=False)
        )

    def _place_start(self, trial_id: int) -> list[Any]:
        drawn = self._start or {}
        misc = {
            "tid": trial_id,
            "cmd": self._domain.cmd,
            "workdir": self._domain.workdir,
            "idxs": {name: [trial_id] for name in drawn},
            "vals": {name: [value] for name, value in drawn.items()},
        }
        return list(self._trials.new_trial_docs([trial_id], [None], [self._domain.new_result()], [misc]))


def _make_plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
