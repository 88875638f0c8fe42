"""A bundle on disk: what comes back of it, and what is refused."""

import hashlib
import json
import pickle
import random
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from commands import BadInputError, NotThereError
from tests.messages import naming
from tests.processes import read_line, start_python
from wine_data.schema import feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.bundle.bundle import (
    METADATA_FILE,
    MODEL_FILE,
    Compiled,
    load_bundle,
    load_current,
    pickle_model,
    select_bundle,
    unpickle_model,
    write_bundle,
    write_candidate,
)
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.bundle.metadata import ModelMetadata, read_metadata
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.models import make_model


@pytest.fixture(scope="module")
def evaluation(twin_split: Split) -> Evaluation:
    wines = twin_split.train.head(300)
    pipeline = make_model("DecisionTreeClassifier", seed=1).fit(feature_frame(wines), wines["quality"])
    return Evaluation("DecisionTreeClassifier", LEAK_FREE, pipeline, (), {})


@pytest.fixture(scope="module")
def metadata(evaluation: Evaluation, twin: WineData, twin_split: Split) -> ModelMetadata:
    return describe_model(evaluation, twin, twin_split.train, name="wine-quality", version="1", run_id="run")


@pytest.fixture
def folder(tmp_path: Path, evaluation: Evaluation, metadata: ModelMetadata) -> Path:
    return write_bundle(tmp_path, pickle_model(evaluation.pipeline), metadata)


def edit_metadata(folder: Path, **changes: object) -> None:
    path = folder / METADATA_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_bundle_comes_back_as_it_went(folder: Path, evaluation: Evaluation, twin_split: Split) -> None:
    bundle = load_bundle(folder)
    X = feature_frame(twin_split.holdout)
    np.testing.assert_array_equal(bundle.pipeline.predict_proba(X), evaluation.pipeline.predict_proba(X))
    assert folder.name == "1"
    assert (bundle.metadata.run_id, bundle.metadata.protocol) == ("run", LEAK_FREE)
    assert len(bundle.metadata.answers) == 8


def test_a_bundle_brings_its_compiled_form(tmp_path: Path, evaluation: Evaluation, metadata: ModelMetadata) -> None:
    compiled = Compiled(b"a graph", "proved")
    assert (
        load_bundle(write_bundle(tmp_path, pickle_model(evaluation.pipeline), metadata, compiled)).compiled
        == b"a graph"
    )


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_a_changed_pickle_is_refused_before_it_is_unpickled(folder: Path, tmp_path: Path) -> None:
    (folder / MODEL_FILE).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(BadInputError, match=naming(MODEL_FILE, "SHA-256")):
        load_bundle(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"features": ["alcohol"]}, ("features", "alcohol")),
        ({"versions": {"scikit-learn": "0.1"}}, ("python", "none")),
        ({"files": {}}, ("nothing", "model.pkl")),
        ({"ranges": None}, ("facts.json", "ranges")),
        ({"mood": "good"}, ("facts.json", "mood")),
    ],
)
def test_a_bundle_with_other_facts_is_refused(folder: Path, changes: dict[str, object], facts: tuple[str, ...]) -> None:
    edit_metadata(folder, **changes)
    with pytest.raises(BadInputError, match=naming(*facts)):
        load_bundle(folder)


@pytest.mark.parametrize(("library", "other"), [("scikit-learn", "1.9.0"), ("python", "3.9.1"), ("numpy", "1.26.4")])
def test_other_libraries_are_refused(folder: Path, metadata: ModelMetadata, library: str, other: str) -> None:
    edit_metadata(folder, versions=metadata.versions | {library: other})
    with pytest.raises(BadInputError, match=naming(f"{library} {other}", "make pipeline")):
        load_bundle(folder)


def test_another_patch_of_python_and_numpy_is_fine(folder: Path, metadata: ModelMetadata) -> None:
    patched = {name: ".".join(metadata.versions[name].split(".")[:2]) + ".99" for name in ("python", "numpy")}
    edit_metadata(folder, versions=metadata.versions | patched)
    load_bundle(folder)


def test_a_file_too_many_or_too_few_is_refused(folder: Path) -> None:
    (folder / "notes.txt").touch()
    with pytest.raises(BadInputError, match=naming("model.pkl", "notes.txt")):
        load_bundle(folder)
    (folder / "notes.txt").unlink()
    (folder / MODEL_FILE).unlink()
    with pytest.raises(BadInputError, match=naming("model.pkl", "nothing")):
        load_bundle(folder)


def test_without_a_model_the_pipeline_is_to_be_run(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="make pipeline"):
        load_current(tmp_path)


def test_a_version_written_again_leaves_the_first_where_it_is(
    folder: Path, evaluation: Evaluation, metadata: ModelMetadata
) -> None:
    pickled = pickle_model(evaluation.pipeline)
    again = write_bundle(folder.parent, pickled, replace(metadata, run_id="another"))
    assert again.name == "1-2"
    assert load_bundle(folder).metadata.run_id == "run"
    assert load_bundle(again).metadata.run_id == "another"


def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(
    folder: Path, evaluation: Evaluation, metadata: ModelMetadata
) -> None:
    select_bundle(folder)
    before = sorted(folder.parent.rglob("*"))
    pickled, limits = pickle_model(evaluation.pipeline), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # every file ends after 20 kB, as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            write_bundle(folder.parent, pickled, metadata)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(folder.parent.rglob("*")) == before
    assert load_current(folder.parent).metadata.version == "1"


WRITE_FOR_EVER = """
import sys
from dataclasses import replace
from pathlib import Path
from wine_quality_training.bundle.bundle import load_bundle, pickle_model, select_bundle, write_bundle
folder = Path(sys.argv[1])
bundle = load_bundle(folder)
print("ready", flush=True)
for version in range(2, 1_000_000):
    metadata = replace(bundle.metadata, version=str(version))
    select_bundle(write_bundle(folder.parent, pickle_model(bundle.pipeline), metadata))
"""


@pytest.mark.full
def test_killed_at_any_moment_the_current_bundle_loads(folder: Path) -> None:
    select_bundle(folder)
    moments = random.Random(1)
    for _ in range(5):
        current = folder.with_name((folder.parent / "current").read_text().strip())
        writer = start_python("-c", WRITE_FOR_EVER, current)
        assert read_line(writer) == "ready"
        time.sleep(moments.uniform(0.02, 0.3))
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
        load_current(folder.parent)
        for path in folder.parent.glob("[0-9]*"):
            load_bundle(path)
    assert (folder.parent / "current").read_text() != "1\n"


def test_a_candidate_comes_back_with_its_facts(tmp_path: Path, evaluation: Evaluation, metadata: ModelMetadata) -> None:
    path = write_candidate(tmp_path, "dtc", evaluation.pipeline, metadata)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["dtc.json", "dtc.pkl"]
    metadata = read_metadata(path.with_suffix(".json"))
    assert metadata.model == "DecisionTreeClassifier"
    assert metadata.files == {"dtc.pkl": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert unpickle_model(path.read_bytes()).named_steps
