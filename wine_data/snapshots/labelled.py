"""Labelled answers: wines that the API predicted and a taster graded since, as data to train on.

They are divided by content, as all wines are (split.py). Those of train may join the known wines; those of the holdout
stay unseen, for the gate to judge a retrained model on.
"""

import pandas as pd

from commands import BadInputError
from wine_data.schema import (
    ANSWERED,
    FEATURES,
    FLAGS,
    GRADES,
    MEASUREMENTS,
    RATERS,
    ROWS,
    SCALE,
    TARGET,
    TYPE,
    decode_type,
)
from wine_data.sources.load import WineData, fingerprint_wines
from wine_data.split import distinct_wines, divide_wines


def divide_labelled(answers: pd.DataFrame) -> WineData:
    """Make data of labelled answers: `train` those of train, `validation` those of the holdout, each wine once.

    `answers` has FEATURES and `quality`. Those without a grade are left out. A wine that was graded several times has
    the median, and grades that no published wine has count as the nearest of GRADES; the note says how many there were.
    Raises BadInputError where none is left.
    """
    graded = answers[answers[TARGET].between(*SCALE)]
    if graded.empty:
        raise BadInputError(f"no answer of the log has a grade of the {RATERS} yet: send them to POST /feedback")
    wines = decode_type(graded[[*FEATURES, TARGET]].astype(dict.fromkeys((*FLAGS, TARGET), "int64")))
    grades = wines.groupby([TYPE, *MEASUREMENTS], dropna=False)[TARGET]
    note = _describe_grades(int((grades.nunique() > 1).sum()), int((~wines[TARGET].isin(GRADES)).sum()))
    wines[TARGET] = grades.transform("median").round().clip(GRADES[0], GRADES[-1]).astype("int64")
    wines = distinct_wines(wines[[TYPE, *FEATURES, TARGET]])
    parts = divide_wines(wines)
    return WineData(*parts, f"{len(wines):,} labelled answers", fingerprint_wines(*parts), note)


def _describe_grades(contested: int, rare: int) -> str:
    """Say what was done with grades that contradict each other, and with those that the model does not know."""
    notes = []
    if contested:
        notes.append(f"{contested:,} {ROWS} that {RATERS} graded differently have the median")
    if rare:
        notes.append(f"{rare:,} grades under {GRADES[0]} or over {GRADES[-1]} count as {GRADES[0]} or {GRADES[-1]}")
    return "; ".join(notes)


def join_labelled(data: WineData, labelled: WineData) -> WineData:
    """The known wines with the labelled answers of train, which are marked in the column ANSWERED."""
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
