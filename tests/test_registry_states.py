"""The registry beside a model of it: whatever is done in whatever order, alias, records and served bundle agree."""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from commands import RefusedError
from deployment.api.live_model import LiveModel
from experiment_tracking.registry.gate import Verdict
from experiment_tracking.registry.promotion import (
    REFUSED,
    list_champions,
    list_records,
    promote,
    roll_back,
    serve_champion,
    settle_moves,
)
from experiment_tracking.registry.versions import (
    CHAMPION,
    find_champion,
    find_version,
    judge_version,
    list_versions,
    register_model,
    set_alias,
)
from tests.faults import ALWAYS, make_faults
from tests.test_faults import open_here, split_few, template
from wine_quality_training.bundle.bundle import load_current

__all__ = ["template"]
NUMBERS = st.integers(0, 3)
STEPS = st.integers(1, 90)  # a promotion has some sixty


class Model:
    """What should be: the versions that are there, the recorded champions, the alias, what serves, and refusals."""

    def __init__(self) -> None:
        self.versions, self.champions, self.alias, self.serves, self.refusals = 3, ["1", "2"], "2", "2", 0

    def list_champions(self) -> list[str]:
        return self.champions if self.champions[-1:] == [self.alias] else [*self.champions, self.alias]

    def promote(self, version: str) -> None:
        self.champions = [*self.list_champions(), version]
        self.alias = self.serves = version

    def former(self) -> str:
        """The version that a rollback brings back, "" for none."""
        if self.champions[-1] != self.alias:
            return self.champions[-1]
        return self.champions[-2] if len(self.champions) > 1 else ""

    def roll_back(self) -> None:
        if self.champions[-1] == self.alias:
            self.champions = self.champions[:-1]
        self.alias = self.serves = self.champions[-1]

    def settle(self) -> None:
        self.serves = self.alias


class RegistryMachine(RuleBasedStateMachine):
    """The real registry on a real store, each rule done to it and to the model."""

    template: Path
    counts: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.counts["orders"] += 1
        self.folder = Path(tempfile.mkdtemp()) / "store"
        shutil.copytree(self.template, self.folder)
        open_here(self.folder)
        self.models = self.folder / "deployment" / "models"
        self.api, self.model = LiveModel(self.models), Model()
        self.holdout, self.verdicts = split_few(self.folder).holdout, dict[str, Verdict]()

    def name(self, number: int) -> str:
        return str(number % self.model.versions + 1)

    @rule()
    def register(self) -> None:
        register_model((self.folder / "retrained").read_text())
        self.model.versions = 4
        assert len(list_versions()) == 4

    @rule(number=NUMBERS)
    def judge(self, number: int) -> None:
        version = find_version(self.name(number))
        self.verdicts[version.number] = judge_version(version, self.holdout)
        assert self.verdicts[version.number].champion == self.model.alias

    @precondition(lambda self: self.verdicts)
    @rule(number=NUMBERS, reason=st.sampled_from(["", "a trial"]))
    def promote_or_refuse(self, number: int, reason: str) -> None:
        version, verdict = self.pick_verdict(number)
        if not reason and not verdict.admitted:
            self.model.refusals += 1
            expected = ""
        else:
            expected = version if verdict.champion == self.model.alias != version else ""
            self.model.settle()
        self.do(lambda: promote(find_version(version), verdict, self.models, reason), refused=not expected)
        if expected:
            self.model.promote(version)

    @rule()
    def roll_back(self) -> None:
        former = self.model.former()
        self.do(lambda: roll_back(self.models), refused=not former)
        self.model.roll_back() if former else self.model.settle()

    @rule()
    def export(self) -> None:
        serve_champion(self.models)
        self.model.settle()

    @rule(number=NUMBERS)
    def move_alias_by_hand(self, number: int) -> None:
        self.model.alias = self.name(number)
        set_alias(CHAMPION, self.model.alias)

    @precondition(lambda self: self.verdicts)
    @rule(number=NUMBERS, step=STEPS)
    def kill_a_promotion(self, number: int, step: int) -> None:
        version, verdict = self.pick_verdict(number)
        if verdict.champion == self.model.alias != version:
            self.kill(lambda: promote(find_version(version), verdict, self.models, "a trial"), step)
            if self.name_champion() == version:
                self.model.promote(version)
            self.restart()

    @precondition(lambda self: self.model.former())
    @rule(step=STEPS)
    def kill_a_rollback(self, step: int) -> None:
        former = self.model.former()
        self.kill(lambda: roll_back(self.models), step)
        if self.name_champion() == former:
            self.model.roll_back()
        self.restart()

    @rule()
    def reload(self) -> None:
        self.api.follow()
        assert (self.api.refused, self.api.writer.predictor.metadata.version) == ("", self.model.serves)

    @invariant()
    def what_serves_is_whole_and_as_the_model_says(self) -> None:
        self.counts["states that were compared with the model's"] += 1
        assert load_current(self.models).metadata.version == self.model.serves
        assert self.name_champion() == self.model.alias
        assert list_champions() == self.model.list_champions()
        assert sum(record.event == REFUSED for record in list_records()) == self.model.refusals

    def pick_verdict(self, number: int) -> tuple[str, Verdict]:
        return list(self.verdicts.items())[number % len(self.verdicts)]

    def name_champion(self) -> str:
        champion = find_champion()
        return champion.number if champion else ""

    def do(self, action: Callable[[], object], *, refused: bool) -> None:
        self.counts["promotions and rollbacks refused" if refused else "promotions and rollbacks done"] += 1
        if refused:
            with pytest.raises(RefusedError):
                action()
        else:
            action()

    def kill(self, action: Callable[[], object], step: int) -> None:
        """Do it with every step from this one on failing, also those that would clear up."""
        with make_faults(self.folder, step, ALWAYS) as faults:
            self.counts["promotions and rollbacks killed"] += 1
            try:
                action()
            except Exception:
                assert faults.place

    def restart(self) -> None:
        settle_moves(self.models)
        self.model.settle()

    def teardown(self) -> None:
        shutil.rmtree(self.folder.parent)


def run_machine(template: Path, orders: int, actions: int, counts: Counter[str], chance: int) -> None:
    """Try so many orders of at most so many actions, which the seed `chance` chooses; `counts` says what was done."""
    machine = seed(chance)(type("Machine", (RegistryMachine,), {"template": template, "counts": counts}))
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    chosen = settings(max_examples=orders, stateful_step_count=actions, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.full
def test_the_registry_does_what_a_model_of_thirty_lines_does(template: Path) -> None:
    counts = Counter[str]()
    run_machine(template, 3, 12, counts, random.randrange(1_000_000))
    assert counts["orders"] >= 3
