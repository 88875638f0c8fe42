"""The registry as one file: packed on one machine, unpacked on another."""

import tarfile
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from commands import BadInputError, NotThereError
from experiment_tracking.archive import ARTIFACTS, BUNDLES, DATABASE, find_places, pack_registry, unpack_registry
from experiment_tracking.registry.promotion import list_champions, promote, record_refusal
from experiment_tracking.registry.versions import CHAMPION, find_version, judge_version, load_version, register_model
from experiment_tracking.runs.store import open_store
from experiment_tracking.runs.tracking import track_model
from settings import Settings
from tests.conftest import Store
from tests.messages import naming
from wine_data.schema import feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.bundle.bundle import load_current
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import make_model


def name_places(folder: Path) -> dict[str, Path]:
    return {DATABASE: folder / "mlflow.db", ARTIFACTS: folder / "mlartifacts", BUNDLES: folder / "deployment/models"}


@pytest.fixture
def archive(store: Store, twin: WineData, twin_split: Split) -> Path:
    """A registry of a champion, a refused version, a newer refused version that is the challenger, packed."""
    for seed in (1, 2, 3):
        evaluation = evaluate_leak_free("a tree", make_model("DecisionTreeClassifier", seed), twin_split)
        tracked = track_model(store.experiment_id, None, twin, twin_split, [evaluation])
        version = register_model(tracked.run_id)
        verdict = judge_version(version, twin_split.holdout)
        if seed == 1:
            promote(version, verdict, store.models, "a test")  # a tree is refused: its probabilities are all 0 or 1
        else:
            record_refusal(version, verdict)
    file = store.folder / "registry.tar.gz"
    assert pack_registry(file, name_places(store.folder)) == ["3", "1"]
    return file


def test_an_unpacked_registry_has_champion_bundle_and_history(archive: Path, tmp_path: Path, twin_split: Split) -> None:
    places = name_places(tmp_path / "another machine")
    unpack_registry(archive, places)
    open_store(f"sqlite:///{places[DATABASE]}", places[ARTIFACTS])
    wines = feature_frame(twin_split.holdout.head())
    champion = load_version(find_version(CHAMPION)).pipeline.predict(wines)
    assert list(champion) == list(load_current(places[BUNDLES]).pipeline.predict(wines))
    assert list_champions() == ["1"]
    with pytest.raises((OSError, MlflowException)):  # what nobody goes back to stayed behind
        load_version(find_version("2"))
    assert load_version(find_version("3")).pipeline.n_features_in_ == 12


def test_a_registry_that_is_there_is_not_overwritten(archive: Path, store: Store) -> None:
    database = store.folder / "mlflow.db"
    before = database.read_bytes()
    with pytest.raises(BadInputError, match=naming(str(database), "make reset")):
        unpack_registry(archive, name_places(store.folder))
    assert database.read_bytes() == before


def test_a_file_that_is_no_registry_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as other:
        other.add(__file__, "test.py")
    (tmp_path / "torn.tar.gz").write_bytes((tmp_path / "other.tar.gz").read_bytes()[:100])
    places = name_places(tmp_path / "here")
    for name, reason in (("other.tar.gz", "mlflow.db"), ("torn.tar.gz", "unpacked")):
        with pytest.raises(BadInputError, match=naming(name, reason)):
            unpack_registry(tmp_path / name, places)
    with pytest.raises(NotThereError):
        unpack_registry(tmp_path / "none.tar.gz", places)
    assert not [place for place in places.values() if place.exists()]


def test_a_store_on_a_server_is_not_packed() -> None:
    with pytest.raises(BadInputError, match="server"):
        find_places(Settings(mlflow_uri="http://127.0.0.1:5000"))


def test_without_a_store_there_is_nothing_to_pack(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="make pipeline"):
        pack_registry(tmp_path / "registry.tar.gz", name_places(tmp_path))
