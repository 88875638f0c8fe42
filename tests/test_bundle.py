import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from commands import BadInputError, NotThereError
from wine_data.schema import feature_frame
from wine_data.split import Sides
from wine_quality_training.bundle import (
    FACTS_FILE,
    MODEL_FILE,
    load_bundle,
    load_current,
    select_bundle,
    write_bundle,
)
from wine_quality_training.models import make_model

FACTS = {
    "name": "wine-quality",
    "version": "1",
    "run_id": "run",
    "model": "RandomForestClassifier",
    "data_source": "twin",
    "data_fingerprint": "print",
    "metrics": {"leak-free.cv.kappa": 0.4},
}


@pytest.fixture(scope="module")
def pipeline(twin_sides: Sides) -> Pipeline:
    wines = twin_sides.training.head(300)
    return make_model("RandomForestClassifier", seed=1).fit(feature_frame(wines), wines["quality"])


@pytest.fixture
def folder(tmp_path: Path, pipeline: Pipeline, twin_sides: Sides) -> Path:
    write_bundle(tmp_path / "1", pipeline, twin_sides.training, **FACTS)
    return tmp_path / "1"


def edit_facts(folder: Path, **changes: object) -> None:
    path = folder / FACTS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_bundle_comes_back_as_it_went(folder: Path, pipeline: Pipeline, twin_sides: Sides) -> None:
    bundle = load_bundle(folder)
    X = feature_frame(twin_sides.holdout)
    np.testing.assert_array_equal(bundle.pipeline.predict_proba(X), pipeline.predict_proba(X))
    assert bundle.facts.run_id == "run"
    assert len(bundle.facts.answers) == 8


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_a_changed_pickle_is_refused_before_it_is_unpickled(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "exploded"
    (folder / MODEL_FILE).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(BadInputError, match=r"changed model\.pkl"):
        load_bundle(folder)
    assert not mark.exists()


def test_the_bomb_of_the_test_above_does_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"features": ["alcohol"]}, "was fitted on the features alcohol"),
        ({"versions": {"scikit-learn": "0.1"}}, "under python none"),
        ({"files": {}}, "should hold nothing and holds model.pkl"),
        ({"ranges": None}, "cannot be read"),
    ],
)
def test_a_bundle_with_other_facts_is_refused(folder: Path, changes: dict[str, object], told: str) -> None:
    edit_facts(folder, **changes)
    with pytest.raises(BadInputError, match=told):
        load_bundle(folder)


@pytest.mark.parametrize(("library", "other"), [("scikit-learn", "1.9.0"), ("python", "3.9.1"), ("numpy", "1.26.4")])
def test_a_bundle_of_another_version_is_refused_by_its_name(folder: Path, library: str, other: str) -> None:
    versions = json.loads((folder / FACTS_FILE).read_text())["versions"]
    edit_facts(folder, versions=versions | {library: other})
    with pytest.raises(BadInputError, match=f"was pickled under {library} {other}"):
        load_bundle(folder)


def test_another_patch_of_python_and_numpy_is_fine(folder: Path) -> None:
    versions = json.loads((folder / FACTS_FILE).read_text())["versions"]
    patched = {library: ".".join(versions[library].split(".")[:2]) + ".99" for library in ("python", "numpy")}
    edit_facts(folder, versions=versions | patched)
    load_bundle(folder)


def test_a_file_too_many_is_refused(folder: Path) -> None:
    (folder / "notes.txt").touch()
    with pytest.raises(BadInputError, match=r"holds model\.pkl, notes\.txt"):
        load_bundle(folder)


def test_without_a_model_one_is_told_to_run_the_pipeline(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="run make pipeline"):
        load_current(tmp_path)


def test_current_names_the_bundle_that_loads(folder: Path) -> None:
    select_bundle(folder.parent, "1")
    assert load_current(folder.parent).facts.version == "1"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["1", "current"]


def test_a_version_written_again_moves_the_old_one_aside(folder: Path, pipeline: Pipeline, twin_sides: Sides) -> None:
    write_bundle(folder, pipeline, twin_sides.training, **FACTS | {"run_id": "another"})
    assert load_bundle(folder).facts.run_id == "another"
    assert load_bundle(folder.with_name("1.before-1")).facts.run_id == "run"


def test_a_failed_write_leaves_the_old_bundle_and_nothing_else(
    folder: Path, pipeline: Pipeline, twin_sides: Sides
) -> None:
    before = sorted(folder.parent.rglob("*"))
    folder.parent.chmod(0o755)
    blocker = folder.with_name(".2.partial")
    blocker.write_text("a file where the partial folder has to go")
    with pytest.raises(OSError, match="exists"):
        write_bundle(folder.with_name("2"), pipeline, twin_sides.training, **FACTS)
    blocker.unlink()
    assert sorted(folder.parent.rglob("*")) == before
    load_bundle(folder)
