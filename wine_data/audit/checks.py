"""The checks of the wines, and what they found: above all, wines that are in both files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from wine_data.schema import BOUNDS, IDENTITY, MEASUREMENTS, PARTS, RED, SEEN, TARGET, TYPE, TYPES, encode_type
from wine_data.sources.load import WineData
from wine_data.split import WINE, drop_duplicates, is_in

# Two files of one origin differ by chance; below this distance a difference is not worth a word.
DRIFT_FLOOR = 0.05
LEAK = "on both sides"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `count` of `total` rows, cells or columns of `where`."""

    check: str
    where: str
    count: int
    total: int
    sentence: str


@dataclass(frozen=True)
class Audit:
    """What was looked for, and what was found."""

    checks: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def leaks(self) -> bool:
        """Whether any wine of the validation file is in the train file."""
        return any(finding.check.startswith(LEAK) for finding in self.findings)

    def sentences(self) -> list[str]:
        """The findings in plain words."""
        return [finding.sentence for finding in self.findings]


def audit_wines(data: WineData) -> Audit:
    """Look for all that CHECKS names. One million rows take seconds."""
    findings = [finding for check in CHECKS.values() for finding in check(data)]
    return Audit(tuple(CHECKS), tuple(findings))


def _find_leaks(data: WineData) -> Iterator[Finding]:
    both = is_in(data.validation, data.train)
    complete = data.validation[WINE].notna().all(axis="columns")
    for name, rows, says in (
        ("complete", complete, "value for value"),
        ("incomplete", ~complete, "on all the cells they have"),
    ):
        count, total = int(both[rows].sum()), int(rows.sum())
        if count:
            yield Finding(
                f"{LEAK}, {name}",
                "validation",
                count,
                total,
                f"{count:,} of the {total:,} {name} validation rows ({count / total:.1%}) "
                f"are in the train file, {says}.",
            )


def _find_repeats(data: WineData) -> Iterator[Finding]:
    for where, table in _name_tables(data):
        distinct = len(drop_duplicates(table))
        if distinct < len(table):
            yield Finding(
                "repeats",
                where,
                len(table) - distinct,
                len(table),
                f"The {where} file holds {distinct:,} distinct wines in {len(table):,} rows.",
            )


def _find_disagreements(data: WineData) -> Iterator[Finding]:
    wines = pd.concat([data.train, data.validation], ignore_index=True)
    grades = wines.drop_duplicates([*WINE, TARGET])
    disagreeing = grades[grades.duplicated(WINE, keep=False)]
    count = len(disagreeing.drop_duplicates(WINE))
    if count:
        yield Finding(
            "same wine, different grade",
            "both",
            count,
            len(grades),
            f"{count:,} wines carry more than one grade; the first is {_describe_wine(disagreeing.iloc[0])}.",
        )


def _find_blanks(data: WineData) -> Iterator[Finding]:
    for where, table in _name_tables(data):
        blanks = table[[*WINE, TARGET]].isna().sum()
        if blanks.sum():
            columns = ", ".join(f"{column} {count}" for column, count in blanks[blanks > 0].items())
            yield Finding(
                "blank cells",
                where,
                int(blanks.sum()),
                table[[*WINE, TARGET]].size,
                f"The {where} file has {blanks.sum():,} blank cells: {columns}.",
            )


def _find_unknown_types(data: WineData) -> Iterator[Finding]:
    for where, table in _name_tables(data):
        unknown = table[TYPE][~table[TYPE].isin(TYPES)]
        if len(unknown):
            names = ", ".join(map(str, unknown.unique()[:5]))
            yield Finding(
                "unknown type",
                where,
                len(unknown),
                len(table),
                f"{len(unknown):,} rows of the {where} file are neither {TYPES[0]} nor {TYPES[1]} but {names}.",
            )


def _find_impossible(data: WineData) -> Iterator[Finding]:
    for where, table in _name_tables(data):
        for column in MEASUREMENTS:
            low, high = BOUNDS[column]
            count = int(((table[column] < low) | (table[column] > high)).sum())
            if count:
                yield Finding(
                    "out of bounds",
                    where,
                    count,
                    len(table),
                    f"{count:,} values of {column} in the {where} file lie outside {low:g} to {high:g}.",
                )
        for part, whole in PARTS:
            count = int((table[part] > table[whole]).sum())
            if count:
                yield Finding(
                    "out of bounds",
                    where,
                    count,
                    len(table),
                    f"{count:,} rows of the {where} file have more {part} than {whole}.",
                )


def _find_odd_columns(data: WineData) -> Iterator[Finding]:
    for where, table in _name_tables(data):
        columns = [TYPE, *MEASUREMENTS, TARGET]
        odd = [f"{column} holds one value only" for column in columns if table[column].nunique() == 1]
        odd += [f"{two} holds what {one} holds" for one, two in _pair_columns(table)]
        odd += [f"{column} looks like {other}" for column, other in _find_swapped(table)]
        for problem in odd:
            yield Finding("odd column", where, 1, len(columns), f"In the {where} file, {problem}.")


def _find_drift(data: WineData) -> Iterator[Finding]:
    columns = [RED, *MEASUREMENTS, TARGET]
    tables = [encode_type(table) for table in (data.train, data.validation)]
    for column in columns:
        one, other = (table[column].dropna() for table in tables)
        if one.empty or other.empty:
            continue
        distance = float(ks_2samp(one, other).statistic)
        if distance > DRIFT_FLOOR:
            yield Finding(
                "drift between files",
                "both",
                1,
                len(columns),
                f"{column} is distributed differently in the two files: Kolmogorov-Smirnov distance {distance:.3f}.",
            )


CHECKS: dict[str, Callable[[WineData], Iterator[Finding]]] = {
    LEAK: _find_leaks,
    "repeats": _find_repeats,
    "same wine, different grade": _find_disagreements,
    "blank cells": _find_blanks,
    "unknown type": _find_unknown_types,
    "out of bounds": _find_impossible,
    "odd column": _find_odd_columns,
    "drift between files": _find_drift,
}


def _name_tables(data: WineData) -> list[tuple[str, pd.DataFrame]]:
    return [("train", data.train), ("validation", data.validation)]


def _pair_columns(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of measurements that are equal from top to bottom."""
    return [(one, two) for one, two in combinations(MEASUREMENTS, 2) if table[one].equals(table[two])]


def _find_swapped(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Columns whose median was never seen under their name, but was under that of another such column."""
    medians = table[list(MEASUREMENTS)].median()
    strange = [column for column in MEASUREMENTS if not _is_seen(medians[column], column)]
    return [(one, two) for one in strange for two in strange if one != two and _is_seen(medians[one], two)]


def _is_seen(value: float, column: str) -> bool:
    low, high = SEEN[column]
    return bool(np.isnan(value) or low <= value <= high)


def _describe_wine(wine: pd.Series) -> str:
    return f"a {wine[TYPE]} with " + ", ".join(f"{name} {wine[name]:g}" for name in IDENTITY)
