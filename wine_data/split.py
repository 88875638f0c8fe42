"""Train or holdout: which part a wine belongs to, for ever.

The part comes from a hash of the wine's content, so it is the same in every file, in every order and in every year. The
hash is of the colour and the columns that are never blank in the published files (IDENTITY in schema.py), each to six
significant digits: a wine with a blank elsewhere keeps its part.

Wines that agree on these form one group and share a part and a fold, whatever else they differ in. A near-repeat that
differs in one of them, by a last digit of the density say, is another group and may be in the other part. Of the 5,320
distinct published wines, 98 differ from another in just one feature, and every such pair has one grade; 6 of the 1,079
holdout wines have such a near-repeat in train, 8 if up to three features may differ (tests/test_split.py counts them).
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
FEWEST_WINES = 200  # leaves about 40 in the holdout; a score of fewer means nothing


@dataclass(frozen=True)
class Split:
    """The distinct wines, divided: no wine is in both parts, and no wine in two folds.

    `folds` holds pairs of positions in `train`: those to fit on, those to score.
    """

    train: pd.DataFrame
    holdout: pd.DataFrame
    folds: list[tuple[np.ndarray, np.ndarray]]


def split_wines(train: pd.DataFrame, validation: pd.DataFrame, folds: int, seed: int) -> Split:
    """Put the distinct wines of both files into train or holdout, and cut train into folds.

    Raises BadInputError where there are too few wines to divide.
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
    """Whether each wine is in the holdout, about a fifth are; one with a blank in IDENTITY never is."""
    known = wines[list(IDENTITY)].notna().all(axis="columns")
    return ((hash_to_unit(wines) < HOLDOUT_SHARE) & known).rename("holdout")


def hash_to_unit(wines: pd.DataFrame) -> pd.Series:
    """Give each wine a number from 0 to 1, as good as random, from its group alone; same index as `wines`."""
    return (group_wines(wines) / np.float64(2**64)).rename("lot")


def distinct_wines(*tables: pd.DataFrame) -> pd.DataFrame:
    """Put tables together and keep each wine once, sorted by content, so the order of the rows has no effect."""
    wines = pd.concat(tables, ignore_index=True).sort_values([*FEATURES, TARGET])
    return drop_duplicates(wines).reset_index(drop=True)


def fold_wines(wines: pd.DataFrame, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut wines into folds for cross-validation, by group and stratified by grade.

    Returns `folds` pairs (positions to fit on, positions to score). Pass the result of distinct_wines, whose order is
    fixed by content. 5,286 of the 5,320 distinct wines are a group of one, so groups are stratified by the grade of
    their first wine.
    """
    groups = group_wines(wines)
    firsts = wines.assign(group=groups).drop_duplicates("group")
    shares = firsts[TARGET].value_counts(normalize=True)
    common = shares.index[shares >= RARE_SHARE]
    grades = firsts[TARGET].clip(common.min(), common.max())  # five wines of grade 9 cannot be spread over more folds
    splitter = StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    scored = [groups.isin(firsts["group"].iloc[chosen]).to_numpy() for _, chosen in splitter.split(firsts, grades)]
    return [(np.flatnonzero(~fold), np.flatnonzero(fold)) for fold in scored]


def is_in(rows: pd.DataFrame, wines: pd.DataFrame) -> pd.Series:
    """Whether each row's wine is in `wines`: boolean, same index as `rows`.

    Rows with the same cells blank are looked up together, so the cost grows with the number of
    such patterns (eleven in the published files), not with the number of rows times wines.
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

    A row with holes is the wine of a complete row that agrees on all the cells it has.
    """
    once = wines.loc[~_hash_rows(wines[WINE]).duplicated()]
    holed = once[WINE].isna().any(axis="columns")
    again = is_in(once[holed], once[~holed])
    return once.drop(index=again.index[again])


def _hash_rows(rows: pd.DataFrame) -> pd.Series:
    """64 bits a row: two different rows of a million agree on them once in 40 million such files."""
    return pd.util.hash_pandas_object(rows, index=False)
