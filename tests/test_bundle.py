"""A bundle on disk: what comes back of it, and what is refused."""

import hashlib
import json
import os
import pickle
import random
import resource
import signal
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest

from commands import BadInputError, NotThereError
from tests.messages import naming
from tests.processes import read_line, start_python
from wine_data.schema import feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.bundle import bundle as bundle_file
from wine_quality_training.bundle.bundle import (
    CURRENT,
    METADATA_FILE,
    MODEL_FILE,
    NOT_COMPILED,
    XGBOOST,
    Compiled,
    CompiledBundle,
    find_bundle,
    find_current,
    load_bundle,
    load_compiled,
    load_current,
    pickle_model,
    select_bundle,
    serves,
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
    folder = write_bundle(tmp_path, pickle_model(evaluation.pipeline), metadata, Compiled(b"a graph", "proved"))
    bundle, compiled = load_bundle(folder), load_compiled(folder)
    assert (bundle.compiled, bundle.metadata.compiled) == (b"a graph", "proved")
    assert compiled == CompiledBundle(b"a graph", bundle.metadata)


def test_a_bundle_without_a_compiled_form_has_none(folder: Path) -> None:
    assert (load_compiled(folder), load_bundle(folder).compiled) == (None, None)


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_a_changed_pickle_is_refused_before_it_is_unpickled(folder: Path, tmp_path: Path) -> None:
    bomb, before = pickle.dumps(Bomb(tmp_path / "exploded")), (folder / MODEL_FILE).read_bytes()
    (folder / MODEL_FILE).write_bytes(bomb)
    digests = [f"{hashlib.sha256(content).hexdigest()[:12]}…" for content in (bomb, before)]
    with pytest.raises(BadInputError, match=naming(str(folder), MODEL_FILE, "SHA-256", *digests)):
        load_bundle(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"features": ["alcohol", "pH"]}, ("features alcohol, pH",)),
        ({"versions": {"scikit-learn": "0.1"}}, ("python", "none")),
        ({"files": {}}, ("nothing", "model.pkl")),
        ({"ranges": None}, ("facts.json", "ranges")),
        ({"mood": "good"}, ("facts.json", "mood")),
    ],
)
def test_a_bundle_with_other_facts_is_refused(folder: Path, changes: dict[str, object], facts: tuple[str, ...]) -> None:
    edit_metadata(folder, **changes)
    with pytest.raises(BadInputError, match=naming(str(folder), *facts)):
        load_bundle(folder)


OTHERS = [("scikit-learn", "1.9.0"), ("python", "3.9.1"), ("numpy", "1.26.4"), ("xgboost", "1.0.0")]


@pytest.mark.parametrize(("library", "other"), OTHERS)
def test_other_libraries_are_refused(folder: Path, metadata: ModelMetadata, library: str, other: str) -> None:
    here = metadata.versions.get(library) or version(XGBOOST)
    edit_metadata(folder, versions=metadata.versions | {library: other})
    with pytest.raises(BadInputError, match=naming(str(folder), f"{library} {other}", here, "make pipeline")):
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
    (folder / MODEL_FILE).symlink_to("a-file-that-was-moved")
    with pytest.raises(BadInputError, match=naming(str(folder / MODEL_FILE), "missing", "make pipeline")):
        load_bundle(folder)
    (folder / MODEL_FILE).unlink()
    edit_metadata(folder, files={})
    with pytest.raises(BadInputError, match=naming(str(folder), "no digest", MODEL_FILE)):
        load_bundle(folder)


def test_without_scikit_learn_a_pickle_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(library: str) -> str:
        raise PackageNotFoundError(library)

    monkeypatch.setattr(bundle_file, "version", find)
    with pytest.raises(
        NotThereError, match=naming(str(folder), NOT_COMPILED.proof, "scikit-learn", "requirements.txt")
    ):
        load_bundle(folder)


def test_without_a_model_the_pipeline_is_to_be_run(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=naming(str(tmp_path), "make pipeline")):
        load_current(tmp_path)


@pytest.mark.parametrize("name", ["", "..", "1/..", "/etc"])
def test_a_current_that_names_no_folder_beside_it_is_refused(folder: Path, name: str) -> None:
    (folder.parent / CURRENT).write_text(name)
    with pytest.raises(BadInputError, match=naming(str(folder.parent / CURRENT), repr(name), "make pipeline")):
        find_current(folder.parent)


def test_a_bundle_serves_where_current_names_it(folder: Path) -> None:
    assert not serves(folder)
    select_bundle(folder)
    assert (serves(folder), serves(folder.with_name("2"))) == (True, False)
    assert find_current(folder.parent) == folder


def test_the_intact_bundle_of_a_run_is_found_among_others(folder: Path, metadata: ModelMetadata) -> None:
    models, pickled = folder.parent, (folder / MODEL_FILE).read_bytes()
    written = [write_bundle(models, pickled, replace(metadata, run_id=run)) for run in ("damaged", "mine", "mine")]
    assert [path.name for path in written] == ["1-2", "1-3", "1-4"]
    write_bundle(models, pickled, replace(metadata, version="10", run_id="tenth"))
    (written[0] / METADATA_FILE).write_text("{")
    (written[1] / MODEL_FILE).write_bytes(b"other")
    (models / "1-5").mkdir()
    assert find_bundle(models, "1", "run") == folder
    assert find_bundle(models, "1", "mine") == written[2]
    assert [find_bundle(models, *other) for other in (("1", "damaged"), ("2", "run"), ("1", "tenth"))] == [None] * 3


def test_a_bundle_is_put_together_beside_the_others_and_anybody_may_read_it(
    folder: Path, metadata: ModelMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, places = folder.parent / "deployment" / "models", set()

    def write(path: Path, content: bytes) -> None:
        places.add(path.parent)
        path.write_bytes(content)

    monkeypatch.setattr(bundle_file, "write_atomically", write)
    for _ in range(2):
        written = write_bundle(models, b"pickled", metadata)
    assert all(place.parent == models and place.name.startswith(".1.partial-") for place in places)
    assert written.stat().st_mode & 0o777 == 0o755


def test_what_killed_writers_left_is_removed_after_a_day(
    folder: Path, metadata: ModelMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young, file = (folder.with_name(f".1.partial-{name}") for name in ("old", "young", "file"))
    for path in (old, young):
        path.mkdir()
        (path / MODEL_FILE).touch()
    file.touch()
    for path, hours in ((old, 24.1), (young, 23.9), (file, 48)):
        os.utime(path, times=(0, time.time() - hours * 3600))
    write_bundle(folder.parent, b"pickled", metadata)
    assert [path.exists() for path in (old, young, file)] == [False, True, True]
    os.utime(young, times=(0, 0))
    with monkeypatch.context() as context:
        context.setattr(os, "rmdir", lambda *_, **__: Path("gone").stat())  # another process is removing it
        assert write_bundle(folder.parent, b"pickled", metadata).name == "1-3"
    assert young.exists()


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
