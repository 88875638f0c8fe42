"""Makes a pair of files as the published one from any wines.

As published: a train file of 5 x 6,497 draws with replacement from the 6,497 UCI rows, and a validation file that is
those 6,497 rows with 38 cells blanked. That is how the same wines came to be in both files.
"""

import numpy as np
import pandas as pd

from wine_data.schema import MEASUREMENTS

ROWS = 6497  # of which 5,320 are distinct in the UCI files
DRAWS = 5 * ROWS
BLANKS = {  # cells blanked in the published validation file; a column that the schema has lost is passed over
    "fixed_acidity": 10,
    "volatile_acidity": 8,
    "citric_acid": 3,
    "residual_sugar": 2,
    "chlorides": 2,
    "pH": 9,
    "sulphates": 4,
}


def publish_pair(wines: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the train file and the validation file from wines, the same for the same wines and seed.

    Fewer than 6,497 wines are filled up with repeats of their own, as the UCI files are.
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
