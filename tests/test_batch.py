"""Files of wines scored with the model that serves, by function, command and flow."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prefect import flow

from commands import BadInputError, NotThereError, RefusedError
from deployment.batch import __main__ as batch
from deployment.batch.file import ScoredFile, score_file
from orchestration.batch import batch_flow
from orchestration.tasks.notification import notify_webhook
from settings import ROOT
from tests.conftest import NOWHERE, PipelineRun, Receiver
from tests.messages import list_missing, naming
from wine_data.schema import FEATURES
from wine_quality_training.bundle.bundle import find_current, load_bundle, load_current

GOOD = "7.0,0.27,0.36,20.7,0.045,45,170,1.001,3.0,0.45,8.8"
HEADER = ",".join(("type", *FEATURES[:-1]))


@pytest.fixture
def wines(tmp_path: Path) -> Path:
    """Four wines, one of them with a blank cell; a row that is none for two reasons, and one of a third colour."""
    folder = tmp_path / "to_score"
    folder.mkdir()
    rows = [f"white,{GOOD}", f"red,{GOOD}", f"red,{GOOD.replace('1.001', '-1').replace('8.8', 'strong')}"]
    rows += [f"White,{GOOD}", f"red,{GOOD.replace('0.45', '')}", f"rose,{GOOD}"]
    (folder / "may.csv").write_text("\n".join((HEADER, *rows)) + "\n")
    return folder / "may.csv"


def test_wines_are_scored_and_other_rows_refused_with_reasons(
    pipeline_run: PipelineRun, wines: Path, tmp_path: Path
) -> None:
    scored = score_file(wines, pipeline_run.serving_models, tmp_path / "answers")
    assert (scored.manifest.scored, scored.manifest.refused, scored.new) == (4, 2, True)
    answers = pd.read_parquet(scored.answers)
    metadata = load_current(pipeline_run.serving_models).metadata
    assert answers["row"].tolist() == [2, 3, 5, 6]
    assert answers["prediction"].between(3, 9).all()
    assert answers.filter(like="probability_").sum(axis="columns").to_numpy() == pytest.approx([1, 1, 1, 1])
    for level in (80, 90):
        assert (answers[f"set_{level}_low"] <= answers["prediction"]).all()
        assert (answers["prediction"] <= answers[f"set_{level}_high"]).all()
    assert set(answers["version"].astype(str)) == {metadata.version}
    assert set(answers["run_id"]) == {metadata.run_id}
    assert answers["request_id"].str.fullmatch("[0-9a-f]{12}-[2356]").all()
    assert answers["request_id"].is_unique
    refused = read_refused(scored)
    found = {4: ("density", "0.9", "-1", "alcohol", "strong"), 7: ("type", "rose")}
    assert set(refused.index) == set(found)
    assert [refused[row] for row in found if list_missing(refused[row], *found[row])] == []


def test_a_blank_cell_is_filled_as_the_model_does_and_a_warning_says_so(
    pipeline_run: PipelineRun, wines: Path, tmp_path: Path
) -> None:
    answers = pd.read_parquet(score_file(wines, pipeline_run.serving_models, tmp_path / "answers").answers)
    bundle = load_bundle(find_current(pipeline_run.serving_models))
    warning = answers["warnings"].iloc[-1]
    assert f"sulphates is blank; the model takes {bundle.metadata.fills['sulphates']:g}" in warning
    hole = pd.DataFrame([[*map(float, GOOD.split(",")), 1.0]], columns=list(FEATURES)).assign(sulphates=np.nan)
    expected = bundle.pipeline.predict_proba(hole)[0]
    assert answers.filter(like="probability_").iloc[-1].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_more_free_than_total_sulfur_dioxide_is_warned_of(bundles: Path, tmp_path: Path) -> None:
    cells = GOOD.split(",")
    cells[5:7] = "60", "50"
    wines = tmp_path / "wines.csv"
    wines.write_text("\n".join([HEADER, f"white,{GOOD}", f"white,{','.join(cells)}"]) + "\n")
    none, warning = pd.read_parquet(score_file(wines, bundles, tmp_path / "answers").answers)["warnings"]
    assert none == ""
    assert list_missing(warning, "free_sulfur_dioxide", "60", "total_sulfur_dioxide", "50") == []


def test_a_bad_file_leaves_the_others_scored(
    pipeline_run: PipelineRun, wines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wines.parent / "bad.CSV").write_text("no wines\n1\n")
    (wines.parent / "hollow.txt").write_text(f"{HEADER}\nrose,{GOOD}\n")
    for name, place in {"SERVING_MODELS": pipeline_run.serving_models, "BATCH_ANSWERS": tmp_path / "out"}.items():
        monkeypatch.setenv(f"WINE_{name}", str(place))
    monkeypatch.setattr(sys, "argv", ["batch", str(wines.parent)])
    with pytest.raises(BadInputError, match="1 of 3"):
        batch.main()
    assert [path.name.split(".")[0] for path in sorted((tmp_path / "out").iterdir())] == ["hollow", "may"]
    monkeypatch.setattr(sys, "argv", ["batch", str(wines.parent / "hollow.txt")])
    with pytest.raises(RefusedError, match=r"hollow\.txt"):
        batch.main()
    monkeypatch.setattr(sys, "argv", ["batch", str(wines.parent / "none")])
    with pytest.raises(NotThereError, match="none"):
        batch.main()


def read_refused(scored: ScoredFile) -> "pd.Series[str]":
    """Reasons by row."""
    assert isinstance(scored.refused, Path)
    files = sorted(scored.refused.iterdir())
    return pd.concat([pd.read_csv(file) for file in files]).set_index("row")["reason"]


def read_files(folder: Path | str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_the_same_wines_get_the_same_answers_and_a_scored_file_is_left_alone(
    pipeline_run: PipelineRun, wines: Path, tmp_path: Path
) -> None:
    first, other = (score_file(wines, pipeline_run.serving_models, tmp_path / name) for name in ("one", "two"))
    assert read_files(first.answers) == read_files(other.answers)
    (part,) = Path(first.answers).iterdir()
    written = part.stat().st_mtime_ns
    again = score_file(wines, pipeline_run.serving_models, tmp_path / "one")
    assert (again.new, again.manifest.scored, again.manifest.refused) == (False, 4, 2)
    assert part.stat().st_mtime_ns == written


def test_a_file_that_changed_is_scored_anew(pipeline_run: PipelineRun, wines: Path, tmp_path: Path) -> None:
    before = score_file(wines, pipeline_run.serving_models, tmp_path / "answers")
    wines.write_text(f"{HEADER}\nred,{GOOD}\n")
    after = score_file(wines, pipeline_run.serving_models, tmp_path / "answers")
    assert (after.new, after.manifest.scored, after.refused) == (True, 1, None)
    assert Path(before.answers).exists()


def test_a_file_without_a_column_is_refused_and_leaves_nothing(
    pipeline_run: PipelineRun, wines: Path, tmp_path: Path
) -> None:
    wines.write_text("type,alcohol\nred,9\n")
    with pytest.raises(BadInputError, match=naming("may.csv", "fixed_acidity")):
        score_file(wines, pipeline_run.serving_models, tmp_path / "answers")
    wines.write_text(f"{HEADER},Alcohol\nred,{GOOD},9\n")
    with pytest.raises(BadInputError, match=naming("may.csv", "alcohol", "once")):
        score_file(wines, pipeline_run.serving_models, tmp_path / "answers")
    assert not (tmp_path / "answers").exists()


def test_without_a_model_it_says_what_to_run(wines: Path, tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="make pipeline"):
        score_file(wines, tmp_path / "models", tmp_path / "answers")


def test_a_disk_that_takes_no_more_leaves_no_answers(pipeline_run: PipelineRun, wines: Path, tmp_path: Path) -> None:
    """A limit of 200 bytes a file stands for the full disk."""
    places = {"WINE_BATCH_WINES": str(wines.parent), "WINE_BATCH_ANSWERS": str(tmp_path / "answers")}
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))"
    limited = f"import resource; from deployment.batch.__main__ import main; {limit}; main()"
    done = subprocess.run(
        [sys.executable, "-c", limited],
        cwd=ROOT, env=pipeline_run.environment | places, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert [path for path in (tmp_path / "answers").rglob("*") if path.is_file() and path.suffix != ".json"] == []


def test_the_command_scores_the_waiting_files_and_says_where_the_answers_are(
    pipeline_run: PipelineRun, wines: Path, tmp_path: Path
) -> None:
    places = {"WINE_BATCH_WINES": str(wines.parent), "WINE_BATCH_ANSWERS": str(tmp_path / "answers")}
    done = subprocess.run(
        [sys.executable, "-m", "deployment.batch"],
        cwd=ROOT, env=pipeline_run.environment | places, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("may.csv: 4 wines scored by version 1 into ")
    assert "2 refused, see " in done.stdout


@pytest.mark.usefixtures("prefect")
def test_the_flow_scores_what_it_can_and_fails_for_the_rest(
    pipeline_run: PipelineRun, wines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINE_SERVING_MODELS", str(pipeline_run.serving_models))
    (scored,) = batch_flow(str(wines), str(tmp_path / "answers"))  # as Prefect's API and its pages give them
    assert isinstance(scored, ScoredFile)
    assert len(read_files(scored.answers)) == 1
    (wines.parent / "april.csv").write_text("type,alcohol\nred,9\n")
    wines.write_text(f"{HEADER}\nred,{GOOD}\n")
    with pytest.raises(BadInputError, match=naming("april.csv", "fixed_acidity")):
        batch_flow(wines.parent, tmp_path / "answers")
    assert len(list((tmp_path / "answers").glob("may.*/answers"))) == 2


@pytest.mark.usefixtures("prefect")
def test_nothing_to_score_is_fine(tmp_path: Path) -> None:
    assert batch_flow(tmp_path) == []


@pytest.mark.usefixtures("prefect")
def test_a_flow_that_fails_tells_the_webhook(
    wines: Path, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINE_WEBHOOK", receiver.address)
    monkeypatch.setenv("WINE_SERVING_MODELS", str(tmp_path / "models"))
    with pytest.raises(NotThereError):
        batch_flow.with_options(name="tested")(wines)
    (found,) = receiver.received
    assert (found["flow"], found["state"]) == ("tested", "Failed")
    assert "make pipeline" in found["text"]


@pytest.mark.usefixtures("prefect")
def test_a_flow_that_crashes_tells_the_webhook(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    @flow(on_crashed=[notify_webhook])
    def crash() -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("WINE_WEBHOOK", receiver.address)
    with pytest.raises(KeyboardInterrupt):
        crash()
    assert [found["state"] for found in receiver.received] == ["Crashed"]


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("address", ["", NOWHERE, "not an address"])
def test_a_webhook_that_is_off_or_out_of_reach_changes_nothing(
    address: str, wines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WINE_WEBHOOK", address)
    monkeypatch.setenv("WINE_SERVING_MODELS", str(tmp_path / "models"))
    with pytest.raises(NotThereError):
        batch_flow(wines)
    found = [record.getMessage() for record in caplog.records if "WINE_WEBHOOK" in record.getMessage()]
    assert len(found) == (1 if address else 0)
    assert not [line for line in found if address and address in line]
