from pathlib import Path

import pandas as pd
import pytest

from commands import BadInputError
from wine_data.pair import BLANKS
from wine_data.reader import COLUMNS
from wine_data.schema import MEASUREMENTS
from wine_data.sources import TRAIN_FILE, VALIDATION_FILE, WineData, load_wines


def test_the_twin_has_the_published_shapes_and_blanks(twin: WineData) -> None:
    assert (len(twin.train), len(twin.validation)) == (32485, 6497)
    blanks = twin.validation[list(MEASUREMENTS)].isna().sum()
    assert blanks[blanks > 0].to_dict() == BLANKS
    assert twin.train.notna().all().all()


def test_the_twin_is_the_same_for_a_seed_and_another_for_another(twin: WineData) -> None:
    assert load_wines("twin", seed=42).fingerprint == twin.fingerprint
    assert load_wines("twin", seed=43).fingerprint != twin.fingerprint
    assert twin.source == "twin (synthetic, seed 42)"


def test_a_folder_gives_back_what_was_written_to_it(tmp_path: Path, twin: WineData) -> None:
    twin.train[list(COLUMNS)].to_csv(tmp_path / TRAIN_FILE, index=False)
    twin.validation[list(COLUMNS)].to_csv(tmp_path / VALIDATION_FILE, index=False)
    read = load_wines(str(tmp_path), seed=1)
    pd.testing.assert_frame_equal(read.train, twin.train)
    assert read.fingerprint == twin.fingerprint
    assert read.source == f"folder {tmp_path.name}"


def test_a_folder_without_the_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"lacks train_wine_data\.csv or test_wine_data\.csv"):
        load_wines(str(tmp_path), seed=1)


def test_a_source_that_is_no_source_is_refused() -> None:
    with pytest.raises(BadInputError, match="WINE_DATA=tween is neither"):
        load_wines("tween", seed=1)


@pytest.mark.real_data
def test_the_real_folder_is_read_whole(real_data: WineData) -> None:
    assert (len(real_data.train), len(real_data.validation)) == (32485, 6497)
    blanks = real_data.validation[list(MEASUREMENTS)].isna().sum()
    assert blanks[blanks > 0].to_dict() == BLANKS
