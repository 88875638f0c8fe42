"""The permanent split: a wine always belongs to the same part, train or holdout.

The part comes from a hash of the wine's content, so it is the same in every file, in every order and in every year. The
hash is of the colour and the columns that are never blank in the published files (IDENTITY in schema.py), each to six
significant digits. So a wine with a blank in another column keeps its part.

Wines with equal values in these columns form one group and share a part and a fold, whatever their other values. A
near-repeat that differs in one of these columns, for example in the last digit of the density, is another group and may
be in the other part. Of the 5,320 distinct published wines, 98 differ from another in only one feature, and both wines
of each such pair have the same grade. 6 of the 1,079 holdout wines have such a near-repeat in train; 8 if up to three
features may differ (tests/test_split.py counts them).
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from commands import BadInputError
from wine_data.schema import FEATURES, IDENTITY, MEASUREMENTS, ROWS, TARGET, TYPE

WINE = [TYPE, *MEASUREMENTS]
HOLDOUT_SHARE = 0.2
RARE_SHARE = 0.01  # a rarer grade at an end of the scale counts as the next one when folds are stratified
FEWEST_WINES = 200  # leaves about 40 in the holdout; a score on fewer is not reliable


@dataclass(frozen=True)
class Split:
    """The distinct wines, divided: no wine is in both parts, and no wine is in two folds.

    `folds` has pairs of positions in `train`: those to fit on and those to score.
    """

    train: pd.DataFrame
    holdout: pd.DataFrame
    folds: list[tuple[np.ndarray, np.ndarray]]


def split_wines(train: pd.DataFrame, validation: pd.DataFrame, folds: int, seed: int) -> Split:
    """Put the distinct wines of both files into train or holdout, and cut train into folds.

    Raises BadInputError if there are too few wines.
    """
    wines = distinct_wines(train, validation)
    if len(wines) < FEWEST_WINES:
        raise BadInputError(
            f"the files hold {len(wines)} distinct {ROWS}; at least {FEWEST_WINES} are needed to train and to score"
        )
    in_train, holdout = divide_wines(wines)
    return Split(in_train, holdout, fold_wines(in_train, folds, seed))


def divide_wines(wines: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The wines of train and those of the holdout."""
    unseen = is_holdout(wines)
    return wines[~unseen].reset_index(drop=True), wines[unseen].reset_index(drop=True)


def group_wines(wines: pd.DataFrame) -> pd.Series:
    """Give each wine its group, an unsigned 64-bit hash of its colour and IDENTITY; same index as `wines`."""
    names = wines[TYPE].astype("str")
    for column in IDENTITY:
        names = names + wines[column].map("|{:.6g}".format).astype("str")
    hashes = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") for name in names.unique()}
    return names.map(hashes).astype("uint64").rename("group")


def is_holdout(wines: pd.DataFrame) -> pd.Series:
    """Whether each wine is in the holdout: about a fifth are, but never a wine with a blank in IDENTITY."""
    known = wines[list(IDENTITY)].notna().all(axis="columns")
    return ((hash_to_unit(wines) < HOLDOUT_SHARE) & known).rename("holdout")


def hash_to_unit(wines: pd.DataFrame) -> pd.Series:
    """Give each wine a pseudo-random number from 0 to 1, from its group alone; same index as `wines`."""
    return (group_wines(wines) / np.float64(2**64)).rename("lot")


def distinct_wines(*tables: pd.DataFrame) -> pd.DataFrame:
    """Concatenate tables and keep each wine once, sorted by content, so that the row order has no effect."""
    wines = pd.concat(tables, ignore_index=True).sort_values([*FEATURES, TARGET])
    return drop_duplicates(wines).reset_index(drop=True)


def fold_wines(wines: pd.DataFrame, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut wines into folds for cross-validation, by group and stratified by grade.

    Returns `folds` pairs (positions to fit on, positions to score). Pass the result of distinct_wines, because its
    order depends only on content. Groups are stratified by the grade of their first wine: 5,286 of the 5,320 distinct
    wines are a group of one.
    """
    groups = group_wines(wines)
    firsts = wines.assign(group=groups).drop_duplicates("group")
    shares = firsts[TARGET].value_counts(normalize=True)
    common = shares.index[shares >= RARE_SHARE]
    grades = firsts[TARGET].clip(common.min(), common.max())  # five wines of grade 9 are too few for more folds
    splitter = StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    scored = [groups.isin(firsts["group"].iloc[chosen]).to_numpy() for _, chosen in splitter.split(firsts, grades)]
    return [(np.flatnonzero(~fold), np.flatnonzero(fold)) for fold in scored]


def is_in(rows: pd.DataFrame, wines: pd.DataFrame) -> pd.Series:
    """Whether each row's wine is in `wines`: boolean, same index as `rows`.

    Rows with the same blank cells are looked up together, so the cost grows with the number of
    such patterns (eleven in the published files), not with rows times wines.
    """
    found = np.zeros(len(rows), dtype=bool)
    blanks = rows[WINE].isna()
    for pattern in blanks.drop_duplicates().to_numpy():
        filled = [name for name, blank in zip(WINE, pattern, strict=True) if not blank]
        members = (blanks.to_numpy() == pattern).all(axis=1)
        found[members] = _hash_rows(rows.loc[members, filled]).isin(_hash_rows(wines[filled]))
    return pd.Series(found, index=rows.index, name="is_in")


def drop_duplicates(wines: pd.DataFrame) -> pd.DataFrame:
    """Keep each wine once: its first complete row, or its first row if none is complete.

    A row with blank cells is the same wine as a complete row with equal values in all its other cells.
    """
    once = wines.loc[~_hash_rows(wines[WINE]).duplicated()]
    holed = once[WINE].isna().any(axis="columns")
    again = is_in(once[holed], once[~holed])
    return once.drop(index=again.index[again])


def _hash_rows(rows: pd.DataFrame) -> pd.Series:
    """A 64-bit hash per row; in one of 40 million files of a million rows, two different rows have equal hashes."""
    return pd.util.hash_pandas_object(rows, index=False)
