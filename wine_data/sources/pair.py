"""Make a pair of files like the published one from any wines.

The published train file has 5 x 6,497 draws with replacement from the 6,497 UCI rows. The published validation file has
those 6,497 rows with 38 blank cells. So the same wines are in both files.
"""

import numpy as np
import pandas as pd

from wine_data.schema import MEASUREMENTS

ROWS = 6497  # of which 5,320 are distinct in the UCI files
DRAWS = 5 * ROWS
BLANKS = {  # blank cells in the published validation file; a column that is no longer in the schema is ignored
    "fixed_acidity": 10,
    "volatile_acidity": 8,
    "citric_acid": 3,
    "residual_sugar": 2,
    "chlorides": 2,
    "pH": 9,
    "sulphates": 4,
}


def publish_pair(wines: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the train file and the validation file from wines; equal wines and seed give equal files.

    If there are fewer than 6,497 wines, random repeats are added, because the UCI files contain repeats too.
    """
    random = np.random.default_rng(seed)
    repeats = random.integers(len(wines), size=max(ROWS - len(wines), 0))
    rows = random.permutation(np.concatenate([np.arange(len(wines)), repeats]))
    originals = wines.iloc[rows].reset_index(drop=True)
    train = originals.iloc[random.integers(len(originals), size=DRAWS)].reset_index(drop=True)
    validation = originals.copy()
    for column, count in BLANKS.items():
        if column in MEASUREMENTS:
            validation.loc[random.choice(len(validation), count, replace=False), column] = np.nan
    return train, validation
