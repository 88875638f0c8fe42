import subprocess
import sys

import pytest

from settings import ROOT
from wine_data.audit import audit_wines
from wine_data.sources import WineData


def test_the_twin_leaks_as_the_published_files_do(twin: WineData) -> None:
    audit = audit_wines(twin)
    assert audit.leaks
    assert audit.validation_in_train / audit.validation_complete > 0.98


def test_separate_wines_do_not_leak(twin: WineData) -> None:
    audit = audit_wines(WineData(twin.train, twin.validation.assign(alcohol=20.0), "test", "none"))
    assert not audit.leaks


@pytest.mark.real_data
def test_the_real_pair_holds_the_same_wines_on_both_sides(real_data: WineData) -> None:
    audit = audit_wines(real_data)
    assert (audit.train_rows, audit.train_distinct) == (32485, 5288)
    assert (audit.validation_complete, audit.validation_in_train) == (6463, 6431)
    assert audit.validation_rows - audit.validation_complete == 34
    assert "6,431 of the 6,463 complete validation rows (99.5%)" in audit.sentences()[1]


@pytest.mark.parametrize(("arguments", "exit_code"), [([], 0), (["--strict"], 1)])
def test_a_leak_is_a_finding_only_under_strict(arguments: list[str], exit_code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wine_data.audit", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == exit_code, done.stderr
    assert "stand in the train file" in done.stdout
