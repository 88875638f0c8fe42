"""Checks of a pair of files: above all, for wines that are in both."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from wine_data.schema import BOUNDS, IDENTITY, MEASUREMENTS, PARTS, RED, SEEN, TARGET, TYPE, TYPES, encode_type
from wine_data.sources.load import WineData
from wine_data.split import WINE, drop_duplicates, is_in

DRIFT_FLOOR = 0.05  # a smaller distance is no finding: with many rows, even tiny differences are significant
CHANCE = 0.01  # of a finding in any column if both files have one origin; with few rows, chance gives large distances
LEAK = "on both sides"
COLUMNS = [*WINE, TARGET]

Check = Callable[[WineData], Iterable["Finding"]]


@dataclass(frozen=True)
class Finding:
    """One problem: it affects `count` of `total` rows, cells or columns of `where`."""

    check: str
    where: str
    count: int
    total: int
    sentence: str


@dataclass(frozen=True)
class Audit:
    """The findings of all checks."""

    findings: tuple[Finding, ...]

    @property
    def leaks(self) -> bool:
        """Whether any wine of the validation file is in the train file."""
        return any(finding.check.startswith(LEAK) for finding in self.findings)

    def sentences(self) -> list[str]:
        """The findings in plain words."""
        return [finding.sentence for finding in self.findings]


def audit_wines(data: WineData) -> Audit:
    """Run all CHECKS. One million rows take seconds."""
    return Audit(tuple(finding for check in CHECKS.values() for finding in check(data)))


def _find_leaks(data: WineData) -> Iterator[Finding]:
    both = is_in(data.validation, data.train)
    complete = data.validation[WINE].notna().all(axis="columns")
    for name, rows, how in (
        ("complete", complete, "value for value"),
        ("incomplete", ~complete, "on all the cells they have"),
    ):
        count, total = int(both[rows].sum()), int(rows.sum())
        if count:
            share = f"{count:,} of the {total:,} {name} validation rows ({count / total:.1%})"
            yield Finding(f"{LEAK}, {name}", "validation", count, total, f"{share} are in the train file, {how}.")


def _find_repeats(where: str, table: pd.DataFrame) -> Iterator[Finding]:
    distinct, total = len(drop_duplicates(table)), len(table)
    if distinct < total:
        sentence = f"The {where} file holds {distinct:,} distinct wines in {total:,} rows."
        yield Finding("repeats", where, total - distinct, total, sentence)


def _find_disagreements(data: WineData) -> Iterator[Finding]:
    wines = pd.concat([data.train, data.validation], ignore_index=True)
    grades = wines.drop_duplicates(COLUMNS)
    disagreeing = grades[grades.duplicated(WINE, keep=False)]
    count = len(disagreeing.drop_duplicates(WINE))
    if count:
        first = disagreeing.iloc[0]
        wine = f"a {first[TYPE]} with " + ", ".join(f"{name} {first[name]:g}" for name in IDENTITY)
        sentence = f"{count:,} wines have more than one grade; the first is {wine}."
        yield Finding("same wine, different grade", "both", count, len(grades), sentence)


def _find_blanks(where: str, table: pd.DataFrame) -> Iterator[Finding]:
    blanks = table[COLUMNS].isna().sum()
    count = int(blanks.sum())
    if count:
        columns = ", ".join(f"{column} {number}" for column, number in blanks[blanks > 0].items())
        sentence = f"The {where} file has {count:,} blank cells: {columns}."
        yield Finding("blank cells", where, count, table[COLUMNS].size, sentence)


def _find_unknown_types(where: str, table: pd.DataFrame) -> Iterator[Finding]:
    unknown = table[TYPE][~table[TYPE].isin(TYPES)]
    if len(unknown):
        names = ", ".join(map(str, unknown.unique()[:5]))
        sentence = f"{len(unknown):,} rows of the {where} file are neither {TYPES[0]} nor {TYPES[1]} but {names}."
        yield Finding("unknown type", where, len(unknown), len(table), sentence)


def _find_impossible(where: str, table: pd.DataFrame) -> Iterator[Finding]:
    counts = {}
    for column in MEASUREMENTS:
        low, high = BOUNDS[column]
        outside = (table[column] < low) | (table[column] > high)
        counts[f"values of {column} in the {where} file lie outside {low:g} to {high:g}"] = int(outside.sum())
    for part, whole in PARTS:
        counts[f"rows of the {where} file have more {part} than {whole}"] = int((table[part] > table[whole]).sum())
    for problem, count in counts.items():
        if count:
            yield Finding("out of bounds", where, count, len(table), f"{count:,} {problem}.")


def _find_odd_columns(where: str, table: pd.DataFrame) -> Iterator[Finding]:
    odd = [f"{column} holds one value only" for column in COLUMNS if table[column].nunique() == 1]
    pairs = combinations(MEASUREMENTS, 2)
    odd += [f"{two} holds what {one} holds" for one, two in pairs if table[one].equals(table[two])]
    odd += [f"{column} has values as {other} has them" for column, other in _find_swapped(table)]
    for problem in odd:
        yield Finding("odd column", where, 1, len(COLUMNS), f"In the {where} file, {problem}.")


def _find_drift(data: WineData) -> Iterator[Finding]:
    columns = [RED, *MEASUREMENTS, TARGET]
    tables = [encode_type(table) for table in (data.train, data.validation)]
    for column in columns:
        one, other = (table[column].dropna() for table in tables)
        if one.empty or other.empty:
            continue
        test = ks_2samp(one, other)
        if test.statistic > DRIFT_FLOOR and test.pvalue < CHANCE / len(columns):
            distance = f"Kolmogorov-Smirnov distance {test.statistic:.3f}, p {test.pvalue:.1g}"
            sentence = f"{column} is distributed differently in the two files: {distance}."
            yield Finding("drift between files", "both", 1, len(columns), sentence)


def _check_each(check: Callable[[str, pd.DataFrame], Iterable[Finding]]) -> Check:
    """Make a check of both files from a check of one file."""
    return lambda data: chain(check("train", data.train), check("validation", data.validation))


CHECKS: dict[str, Check] = {
    LEAK: _find_leaks,
    "repeats": _check_each(_find_repeats),
    "same wine, different grade": _find_disagreements,
    "blank cells": _check_each(_find_blanks),
    "unknown type": _check_each(_find_unknown_types),
    "out of bounds": _check_each(_find_impossible),
    "odd column": _check_each(_find_odd_columns),
    "drift between files": _find_drift,
}


def _find_swapped(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of columns with medians outside their published ranges, where the first fits the second's range."""
    medians = table[list(MEASUREMENTS)].median()
    strange = [column for column in MEASUREMENTS if not _is_seen(medians[column], column)]
    return [(one, two) for one in strange for two in strange if one != two and _is_seen(medians[one], two)]


def _is_seen(value: float, column: str) -> bool:
    low, high = SEEN[column]
    return bool(np.isnan(value) or low <= value <= high)
