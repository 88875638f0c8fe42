"""Models that an intruder has put in the place of ours: none of their code may run, which a canary file would show."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from commands import BadInputError
from deployment.api.live_model import LiveModel
from deployment.predictor import load_predictor
from experiment_tracking.registry import versions
from experiment_tracking.registry.versions import load_version
from tests.conftest import Served
from tests.messages import list_missing
from tests.test_bundle import Bomb
from tests.test_registry import GOOD, Registry, fitted, registry
from wine_data.schema import FEATURES
from wine_quality_training.bundle.bundle import METADATA_FILE, MODEL_FILE, select_bundle
from wine_quality_training.bundle.compiled import CompiledModel

__all__ = ["fitted", "registry"]


def plant(served: Served, name: str, content: bytes, digest: str = "") -> None:
    """Select a copy of a good bundle in which one file is ours; with a digest, the metadata vouch for it."""
    folder = served.models / "4"
    shutil.copytree(served.models / "1", folder)
    (folder / name).write_bytes(content)
    facts = json.loads((folder / METADATA_FILE).read_text())
    if digest:
        facts["files"][name] = digest
        (folder / METADATA_FILE).write_text(json.dumps(facts))
    select_bundle(folder)


def test_a_server_that_is_handed_a_hostile_pickle_goes_on_with_its_model(served: Served, tmp_path: Path) -> None:
    live = LiveModel(served.models)
    plant(served, MODEL_FILE, pickle.dumps(Bomb(tmp_path / "canary")))
    live.follow()
    assert list_missing(live.refused, MODEL_FILE, "SHA-256") == []
    assert live.writer.predictor.metadata.version == "1"
    assert not (tmp_path / "canary").exists()


def test_a_hostile_pickle_that_its_metadata_vouch_for_is_not_read_beside_a_compiled_form(
    served: Served, tmp_path: Path
) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "canary"))
    plant(served, MODEL_FILE, bomb, hashlib.sha256(bomb).hexdigest())
    assert load_predictor(served.models).is_compiled
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("place", ["../../canary", "canary", "{folder}/canary", "./canary"])
def test_a_graph_cannot_read_other_files(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    for folder in (tmp_path, here):
        (folder / "canary").write_bytes(np.ones((len(FEATURES), 7)).tobytes())
    monkeypatch.chdir(here)
    weights = TensorProto(name="weights", data_type=TensorProto.DOUBLE, dims=[len(FEATURES), 7])
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", place.format(folder=tmp_path)
    wines, shares = (
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, width])
        for name, width in (("wines", len(FEATURES)), ("probabilities", 7))
    )
    node = helper.make_node("MatMul", ["wines", "weights"], ["probabilities"])
    graph = helper.make_graph([node], "hostile", [wines], [shares], [weights])
    content = onnx.ModelProto.SerializeToString(helper.make_model(graph, ir_version=8))
    with pytest.raises(BadInputError):
        CompiledModel(content)


def test_a_current_that_leads_out_of_the_folder_of_models_is_refused(served: Served, tmp_path: Path) -> None:
    shutil.copytree(served.models / "1", tmp_path / "elsewhere")
    for name in ("../../elsewhere", str(tmp_path / "elsewhere"), ".", ""):
        (served.models / "current").write_text(name)
        with pytest.raises(BadInputError):
            load_predictor(served.models)


@pytest.mark.full
def test_no_code_that_an_mlmodel_names_is_run(registry: Registry, tmp_path: Path) -> None:
    version = registry.register(GOOD)
    (described,) = (registry.store.folder / "mlartifacts").rglob("MLmodel")
    (described.parent / "canary.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    hostile = f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{tmp_path}/canary]]"
    text = described.read_text()
    for changed in (
        text.replace("loader_module: mlflow.sklearn", "loader_module: canary\n    code: ."),
        f"{text}\nhostile: {hostile}\n",
    ):
        assert changed != text
        described.write_text(changed)
        assert load_version(version).metadata.version == "1"
        assert versions.export_version(version, registry.store.models).name == "1"
        assert not (tmp_path / "canary").exists()
