"""Labelled answers as data to train on: divided by content, one grade a wine."""

import numpy as np
import pandas as pd
import pytest

from commands import BadInputError
from monitoring.simulate.drifts import Drift
from monitoring.simulate.traffic import sample_drifted
from tests.messages import list_missing
from wine_data.schema import ANSWERED, FEATURES, TARGET
from wine_data.snapshots.labelled import divide_labelled, join_labelled
from wine_data.sources.load import WineData
from wine_data.split import is_holdout, split_wines
from wine_data.twin.sample import sample_twin

pytestmark = pytest.mark.fast


def test_labelled_answers_are_divided_by_content_and_join_the_training_side_only(twin: WineData) -> None:
    answers = sample_drifted(Drift("shift", "alcohol", 1.5), 600, 3)
    labelled = divide_labelled(answers.assign(quality=answers[TARGET].where(answers.index % 2 == 0)))
    assert len(labelled.train) + len(labelled.validation) == 300
    assert is_holdout(labelled.validation).all()
    assert not is_holdout(labelled.train).any()
    known = split_wines(twin.train, twin.validation, 2, 0)
    joined = join_labelled(twin, labelled)
    split = split_wines(joined.train, joined.validation, 2, 0)
    pd.testing.assert_frame_equal(split.holdout[list(FEATURES)], known.holdout[list(FEATURES)])
    assert int(split.train[ANSWERED].eq(True).sum()) == len(labelled.train)
    assert joined.labelled == labelled.fingerprint
    assert joined.fingerprint != twin.fingerprint


def test_answers_without_a_grade_are_nothing_to_learn_from() -> None:
    with pytest.raises(BadInputError, match="POST /feedback"):
        divide_labelled(sample_twin(10, 1).assign(quality=np.nan))


def test_grades_that_contradict_each_other_train_as_their_median_and_rare_ones_as_the_nearest() -> None:
    wine, other, third = (sample_twin(3, 1)[list(FEATURES)].iloc[[row]] for row in range(3))
    given = ((wine, 8), (wine, 4), (wine, 7), (other, 10), (other, 10), (third, 1), (third, np.nan))
    labelled = divide_labelled(pd.concat([table.assign(quality=float(grade)) for table, grade in given]))
    grades = pd.concat([labelled.train, labelled.validation]).set_index("alcohol")[TARGET]
    assert [grades[table["alcohol"].item()] for table in (wine, other, third)] == [7, 9, 3]
    assert labelled.source.startswith("3 ")
    assert list_missing(labelled.note, "1 wines", "median", "3 grades", "9") == []
