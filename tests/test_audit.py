import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from settings import ROOT
from tests.conftest import isolated_environment
from wine_data.audit import CHECKS, LEAK, Finding, audit_wines
from wine_data.audit_figure import draw_audit
from wine_data.sources import WineData
from wine_data.twin import sample_twin


@pytest.fixture(scope="module")
def clean() -> WineData:
    """Two files of different wines, without any fault."""
    wines = sample_twin(4000, seed=5)
    wines = wines[wines["free_sulfur_dioxide"] <= wines["total_sulfur_dioxide"]]
    return WineData(wines.iloc[:2000].reset_index(drop=True), wines.iloc[2000:].reset_index(drop=True), "test", "none")


def change(data: WineData, **columns: Any) -> WineData:
    return WineData(data.train, data.validation.assign(**columns), data.source, data.fingerprint)


def find(data: WineData, check: str) -> list[Finding]:
    return [finding for finding in audit_wines(data).findings if finding.check.startswith(check)]


def test_files_without_fault_have_no_findings(clean: WineData) -> None:
    audit = audit_wines(clean)
    assert audit.findings == ()
    assert not audit.leaks
    assert audit.checks == tuple(CHECKS)


def test_the_twin_leaks_as_the_published_files_do(twin: WineData) -> None:
    complete, incomplete = find(twin, LEAK)
    assert audit_wines(twin).leaks
    assert complete.count / complete.total > 0.98
    assert incomplete.count / incomplete.total > 0.9


@pytest.mark.real_data
def test_the_real_pair_holds_the_same_wines_on_both_sides(real_data: WineData) -> None:
    complete, incomplete = find(real_data, LEAK)
    assert (complete.count, complete.total) == (6431, 6463)
    assert (incomplete.count, incomplete.total) == (34, 34)
    assert "6,431 of the 6,463 complete validation rows (99.5%) stand in the train file" in complete.sentence
    assert "The train file holds 5,288 distinct wines in 32,485 rows." in audit_wines(real_data).sentences()
    assert find(real_data, "same wine, different grade") == []
    assert find(real_data, "blank cells")[0].count == 38
    assert find(real_data, "drift") == []


def test_one_wine_with_a_hole_is_found_on_both_sides(clean: WineData) -> None:
    holed = clean.train.head(1).assign(pH=np.nan)
    leak = find(WineData(clean.train, pd.concat([clean.validation, holed], ignore_index=True), "test", "none"), LEAK)
    assert [(finding.check, finding.count, finding.total) for finding in leak] == [("on both sides, incomplete", 1, 1)]


def test_a_wine_with_two_grades_is_found(clean: WineData) -> None:
    other = clean.train.head(1).assign(quality=9)
    found = find(WineData(pd.concat([clean.train, other]), clean.validation, "test", "none"), "same wine, different")
    assert [finding.count for finding in found] == [1]


@pytest.mark.parametrize(
    ("column", "make", "check", "told"),
    [
        ("pH", lambda t: t["pH"].where(t.index > 2), "blank cells", "has 3 blank cells: pH 3"),
        ("type", lambda t: t["type"].where(t.index > 0, "pink"), "unknown type", "1 rows of the validation file are"),
        ("density", lambda t: t["density"] * 1000, "out of bounds", "values of density in the validation file lie"),
        ("free_sulfur_dioxide", lambda t: t["total_sulfur_dioxide"] + 1, "out of bounds", "than total_sulfur_dioxide"),
        ("pH", lambda t: 3.0, "odd column", "pH holds one value only"),
        ("alcohol", lambda t: t["sulphates"], "odd column", "alcohol holds what sulphates holds"),
        ("alcohol", lambda t: t["sulphates"].to_numpy()[::-1], "odd column", "values of sulphates in another order"),
        ("alcohol", lambda t: t["alcohol"] + 1, "drift", "alcohol is distributed differently in the two files"),
        ("quality", lambda t: t["quality"].clip(6, 9), "drift", "quality is distributed differently"),
    ],
)  # fmt: skip
def test_a_fault_in_one_column_is_found(clean: WineData, column: str, make: Any, check: str, told: str) -> None:
    found = find(change(clean, **{column: make(clean.validation)}), check)
    assert any(told in finding.sentence for finding in found), found


def test_two_columns_under_each_others_names_are_found(clean: WineData) -> None:
    swapped = change(clean, alcohol=clean.validation["density"], density=clean.validation["alcohol"])
    sentences = [finding.sentence for finding in find(swapped, "odd column")]
    assert "In the validation file, density looks like alcohol." in sentences
    assert "In the validation file, alcohol looks like density." in sentences


def test_the_picture_shows_both_files(twin: WineData) -> None:
    axes = draw_audit(twin.train, twin.validation).axes[0]
    assert [text.get_text() for text in axes.texts] == [" 5,290 new of 32,485 rows", " 30 new of 6,497 rows"]


@pytest.mark.parametrize(("arguments", "exit_code"), [([], 0), (["--strict"], 1)])
def test_a_leak_is_a_finding_only_under_strict(arguments: list[str], exit_code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wine_data.audit", *arguments],
        cwd=ROOT, env=isolated_environment(tmp_path) | {"WINE_DATA": "twin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == exit_code, done.stderr
    assert "stand in the train file" in done.stdout
    assert (tmp_path / "audit.png").stat().st_size > 5000
