from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.folders import isolated_environment
from tests.messages import find_lines, list_missing
from tests.running import run_here
from wine_data.audit.checks import LEAK, Finding, audit_wines
from wine_data.audit.figure import plot_audit
from wine_data.sources.load import WineData
from wine_data.twin.sample import sample_twin


@pytest.fixture(scope="module")
def clean() -> WineData:
    """Two files of different wines, without any fault."""
    wines = sample_twin(4000, seed=5).query("free_sulfur_dioxide <= total_sulfur_dioxide")
    return WineData(wines.iloc[:2000].reset_index(drop=True), wines.iloc[2000:].reset_index(drop=True), "test", "none")


def change(data: WineData, **columns: Any) -> WineData:
    return replace(data, validation=data.validation.assign(**columns))


def find(data: WineData, check: str) -> list[Finding]:
    return [finding for finding in audit_wines(data).findings if finding.check.startswith(check)]


def test_files_without_fault_have_no_findings(clean: WineData) -> None:
    audit = audit_wines(clean)
    assert audit.findings == ()
    assert not audit.leaks


def test_halves_of_few_wines_differ_by_chance_and_that_is_no_finding() -> None:
    for seed in range(10):
        wines = sample_twin(500, seed)
        train, validation = (wines.iloc[part].reset_index(drop=True) for part in (slice(250), slice(250, None)))
        assert find(WineData(train, validation, "test", "none"), "drift") == []


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
    assert list_missing(complete.sentence, "6,431", "6,463", "99.5%") == []
    assert find_lines("\n".join(audit_wines(real_data).sentences()), "train", "5,288", "32,485")
    assert find(real_data, "same wine, different grade") == []
    assert find(real_data, "blank cells")[0].count == 38
    assert find(real_data, "drift") == []


def test_one_wine_with_a_hole_is_found_on_both_sides(clean: WineData) -> None:
    holed = pd.concat([clean.validation, clean.train.head(1).assign(pH=np.nan)], ignore_index=True)
    (leak,) = find(replace(clean, validation=holed), LEAK)
    assert (leak.check, leak.count, leak.total) == ("on both sides, incomplete", 1, 1)


def test_a_wine_with_two_grades_is_found(clean: WineData) -> None:
    twice = pd.concat([clean.train, clean.train.head(1).assign(quality=9)])
    (found,) = find(replace(clean, train=twice), "same wine, different grade")
    assert found.count == 1


@pytest.mark.parametrize(
    ("column", "make", "check", "facts"),
    [
        ("pH", lambda t: t["pH"].where(t.index > 2), "blank cells", ("validation", "3", "pH")),
        ("type", lambda t: t["type"].where(t.index > 0, "pink"), "unknown type", ("validation", "1", "pink")),
        ("density", lambda t: t["density"] * 1000, "out of bounds", ("validation", "density", "0.9", "1.2")),
        ("free_sulfur_dioxide", lambda t: t["total_sulfur_dioxide"] + 1, "out of bounds",
         ("validation", "free_sulfur_dioxide", "total_sulfur_dioxide")),
        ("pH", lambda t: 3.0, "odd column", ("validation", "pH", "one")),
        ("alcohol", lambda t: t["sulphates"], "odd column", ("validation", "alcohol", "sulphates")),
        ("alcohol", lambda t: t["alcohol"] + 1, "drift", ("alcohol", "Kolmogorov-Smirnov")),
        ("quality", lambda t: t["quality"].clip(6, 9), "drift", ("quality", "Kolmogorov-Smirnov")),
    ],
)  # fmt: skip
def test_a_fault_in_one_column_is_found(
    clean: WineData, column: str, make: Any, check: str, facts: tuple[str, ...]
) -> None:
    found = find(change(clean, **{column: make(clean.validation)}), check)
    assert any(not list_missing(finding.sentence, *facts) for finding in found), found


def test_two_columns_under_each_others_names_are_found(clean: WineData) -> None:
    swapped = change(clean, alcohol=clean.validation["density"], density=clean.validation["alcohol"])
    sentences = [finding.sentence for finding in find(swapped, "odd column")]
    found = find_lines("\n".join(sentences), "validation", "density", "alcohol")
    assert sorted(line.index("density") < line.index("alcohol") for line in found) == [False, True]


def test_the_picture_shows_both_files(twin: WineData) -> None:
    train, validation = (text.get_text() for text in plot_audit(twin.train, twin.validation).axes[0].texts)
    assert list_missing(train, "5,290", "32,485") == []
    assert list_missing(validation, "30", "6,497") == []


@pytest.mark.parametrize(("arguments", "exit_code"), [([], 0), (["--strict"], 1)])
def test_a_leak_is_a_finding_only_under_strict(
    arguments: list[str], exit_code: int, twin: WineData, tmp_path: Path
) -> None:
    done = run_here("wine_data.audit", isolated_environment(tmp_path) | {"WINE_DATA": "twin"}, *arguments)
    assert done.returncode == exit_code, done.stderr
    for leak in find(twin, LEAK):
        facts = (f"{leak.count:,}", f"{leak.total:,}", f"{leak.count / leak.total:.1%}")
        assert find_lines(done.stdout, "validation", *facts)
    assert (tmp_path / "audit.png").stat().st_size > 5000
