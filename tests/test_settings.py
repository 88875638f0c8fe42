import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import BadInputError
from settings import ROOT, Settings, list_values, load_settings, render_settings
from tests.running import run_process
from tests.told import assert_told_in_one_line, naming
from wine_data.sources.load import TRAIN_FILE, VALIDATION_FILE


def test_a_setting_comes_from_the_environment_or_lies_inside_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINE_PORT", "8080")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    settings = load_settings()
    assert (settings.port, settings.mlflow_uri) == (8080, "sqlite:///elsewhere.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert str(ROOT) in load_settings().mlflow_uri


@pytest.mark.parametrize(("variable", "value"), [("WINE_PORT", "eighty"), ("WINE_FOLDS", "1"), ("WINE_SEED", "-1")])
def test_a_wrong_setting_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadInputError, match=naming(variable, value)):
        load_settings()


def test_the_page_of_settings_is_the_one_that_the_command_prints() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == render_settings()


def test_every_setting_is_listed_and_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINE_API_KEY", "a-long-key")
    monkeypatch.setenv("WINE_LOG_URL", "postgresql+psycopg://wine:a-password@db/log")
    values = list_values(load_settings())
    assert len(values) == len(Settings.model_fields)
    assert values["WINE_LOG_URL"] == "postgresql+psycopg://wine:***@db/log"
    assert "a-long-key" not in str(values)


def test_a_command_whose_reader_has_read_enough_ends_without_a_word() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "settings"]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_bad_input_ends_a_command_with_2_and_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (TRAIN_FILE, VALIDATION_FILE):
        (tmp_path / name).write_text("a,b\n1,2\n")
    monkeypatch.setenv("WINE_DATA", str(tmp_path))
    assert_told_in_one_line(run_process(sys.executable, "-m", "wine_data.audit"), 2, TRAIN_FILE)
