"""When two rows are the same wine: they agree on colour and measurements.

A row with holes is a wine if it agrees with that wine on every cell it has.
"""

import numpy as np
import pandas as pd

from wine_data.schema import MEASUREMENTS, TYPE

WINE = [TYPE, *MEASUREMENTS]


def stands_in(rows: pd.DataFrame, wines: pd.DataFrame) -> pd.Series:
    """Say of each row whether its wine stands in `wines`: boolean, same index as `rows`.

    Rows with the same cells blank are looked up together, so the cost grows with the number of
    such patterns (eleven in the published files), not with the number of rows times wines.
    """
    found = np.zeros(len(rows), dtype=bool)
    blanks = rows[WINE].isna()
    for pattern in blanks.drop_duplicates().to_numpy():
        filled = [name for name, blank in zip(WINE, pattern, strict=True) if not blank]
        members = (blanks.to_numpy() == pattern).all(axis=1)
        found[members] = _hash_rows(rows.loc[members, filled]).isin(_hash_rows(wines[filled]))
    return pd.Series(found, index=rows.index, name="stands_in")


def drop_repeats(wines: pd.DataFrame) -> pd.DataFrame:
    """Keep each wine once: its first complete row, or its first row if none is complete."""
    once = wines.loc[~_hash_rows(wines[WINE]).duplicated()]
    holed = once[WINE].isna().any(axis="columns")
    again = stands_in(once[holed], once[~holed])
    return once.drop(index=again.index[again])


def _hash_rows(rows: pd.DataFrame) -> pd.Series:
    """64 bits a row: two different rows of a million agree on them once in 40 million such files."""
    return pd.util.hash_pandas_object(rows, index=False)
