"""Labelled answers: wines that the API predicted and a taster graded later, as training data.

They are divided by content, like all wines (split.py). Those of train may be added to the known wines. Those of the
holdout stay unseen, so that the gate can test a retrained model on them.
"""

import numpy as np
import pandas as pd

from commands import BadInputError
from wine_data.schema import ANSWERED, FEATURES, GRADES, MEASUREMENTS, RED, SCALE, TARGET, TYPE, TYPES
from wine_data.sources.load import WineData, fingerprint_wines
from wine_data.split import distinct_wines, divide_wines


def divide_labelled(answers: pd.DataFrame) -> WineData:
    """Make data from labelled answers: `train` has those of train, `validation` those of the holdout, each wine once.

    `answers` has FEATURES and `quality`. Answers without a grade are left out. A wine with several grades gets their
    median. Grades that no published wine has become the nearest of GRADES. The note gives both counts.
    Raises BadInputError if no answer has a grade.
    """
    graded = answers[answers[TARGET].between(*SCALE)]
    if graded.empty:
        raise BadInputError("no answer in the log has a taster's grade yet: send grades to POST /feedback")
    wines = graded[list(MEASUREMENTS)].assign(
        **{TYPE: pd.Series(np.where(graded[RED] == 1, *TYPES), index=graded.index, dtype="str")},
        **{RED: graded[RED].astype("int64"), TARGET: graded[TARGET].astype("int64")},
    )
    grades = wines.groupby([TYPE, *MEASUREMENTS], dropna=False)[TARGET]
    note = _describe_grades(int((grades.nunique() > 1).sum()), int((~wines[TARGET].isin(GRADES)).sum()))
    wines[TARGET] = grades.transform("median").round().clip(GRADES[0], GRADES[-1]).astype("int64")
    wines = distinct_wines(wines[[TYPE, *FEATURES, TARGET]])
    parts = divide_wines(wines)
    return WineData(*parts, f"{len(wines):,} labelled answers", fingerprint_wines(*parts), note)


def _describe_grades(contested: int, rare: int) -> str:
    """Describe what was done with contradicting grades, and with grades that the model does not know."""
    notes = []
    if contested:
        notes.append(f"{contested:,} wines that tasters graded differently have the median")
    if rare:
        notes.append(f"{rare:,} grades under {GRADES[0]} or over {GRADES[-1]} count as {GRADES[0]} or {GRADES[-1]}")
    return "; ".join(notes)


def join_labelled(data: WineData, labelled: WineData) -> WineData:
    """Add the labelled answers of train to the known wines, and mark them in the column ANSWERED."""
    train = pd.concat(
        [data.train.assign(**{ANSWERED: False}), labelled.train.assign(**{ANSWERED: True})], ignore_index=True
    )
    return WineData(
        train,
        data.validation,
        f"{data.source} and {len(labelled.train):,} labelled answers",
        fingerprint_wines(train, data.validation),
        "\n".join(filter(None, (data.note, labelled.note))),
        labelled.fingerprint,
    )
