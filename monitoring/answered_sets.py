"""The grade sets of logged answers, made anew of their probabilities: the log needs no column for them."""

import json

import numpy as np
import pandas as pd

from wine_data.schema import TARGET
from wine_quality_training.bundle.grade_sets import find_true_masses


def find_answered_masses(labelled: pd.DataFrame) -> np.ndarray:
    """The mass of the taster's grade in each graded answer of one model: its set holds the grade up to this threshold.

    An answer whose probabilities cannot be read is left out.
    """
    rows = pd.DataFrame([_read_probabilities(text) for text in labelled["probabilities"]], index=labelled.index)
    grades = sorted(int(name) for name in rows.columns)
    names = {str(grade): f"probability_{grade}" for grade in grades}
    known = rows.rename(columns=names).dropna()
    answers = labelled.loc[known.index, ["prediction", TARGET]].astype("int64")
    return find_true_masses(answers.join(known), grades) if grades else np.empty(0)


def _read_probabilities(text: object) -> dict[str, float]:
    try:
        read = json.loads(str(text))
    except ValueError:
        return {}
    return {name: float(share) for name, share in read.items()} if isinstance(read, dict) else {}
