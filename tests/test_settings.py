import getpass
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from commands import BadInputError
from settings import (
    REAL_DATA,
    ROOT,
    Settings,
    list_values,
    load_settings,
    name_variable,
    prepare_proxies,
    prepare_user,
    render_settings,
)
from tests.messages import assert_failed_in_one_line, list_missing, naming
from tests.processes import run_program
from tests.running import Receiver
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


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    default = load_settings()
    for name in ("WINE_HOST", "WINE_PORT", "WINE_SNAPSHOTS", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
    assert load_settings() == default


@pytest.mark.parametrize("address", ["ftp://a.example/store", "mlruns", "http:/half", "sqlite:"])
def test_an_address_that_no_store_can_have_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(BadInputError, match=naming("MLFLOW_TRACKING_URI", address, "sqlite:////a/file.db")):
        load_settings()


def test_the_refusal_of_an_address_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgrsql://wine:a-password@db/mlflow")
    with pytest.raises(BadInputError, match=r"\A(?!.*a-password)"):
        load_settings()


def test_a_misspelt_setting_is_reported_with_the_nearest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WINE_FODLS=3\nLOG_PASSWORD=other\n")
    with patch.dict(os.environ, {"WINE_PROT": "8080"}), patch("settings.ROOT", tmp_path):
        load_settings()
        load_settings()
    of_file, of_environment = capsys.readouterr().err.splitlines()  # each once
    assert list_missing(of_file, "WINE_FODLS", "WINE_FOLDS") == []
    assert list_missing(of_environment, "WINE_PROT", "WINE_PORT") == []


def test_a_file_env_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WINE_PORT=8080", encoding="utf-16")
    with patch("settings.ROOT", tmp_path), pytest.raises(BadInputError, match=naming(".env", "UTF-8")):
        load_settings()


def test_a_user_without_home_and_name_gets_both(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with patch("pwd.getpwuid", side_effect=KeyError("no such user")):
        prepare_user()
        assert Path.home().is_dir()
        assert getpass.getuser() == str(os.getuid())


def test_every_variable_that_the_project_speaks_of_is_a_setting() -> None:
    files = [path for pattern in ("*.md", "docs/*.md", "[!.t]*/**/*.py") for path in ROOT.glob(pattern)]
    spoken_of = {name for path in files for name in re.findall(r"\bWINE_[A-Z_]*[A-Z]\b", path.read_text())}
    constant = "WINE_BYTES"  # of the API
    assert spoken_of - {REAL_DATA, constant, *map(name_variable, Settings.model_fields)} == set()


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
    assert_failed_in_one_line(run_program(sys.executable, "-m", "wine_data.audit"), 2, TRAIN_FILE)


ASK_HERE = """
import sys

import settings, httpx, requests

for ask in (httpx.post, requests.post):
    for host in ("127.0.0.1", "localhost"):
        ask(sys.argv[1].replace("127.0.0.1", host), json={}, timeout=20).raise_for_status()
"""
DEAD = "127.0.0.1:9"


@pytest.mark.parametrize("variable", ["ALL_PROXY", "http_proxy"])
@pytest.mark.parametrize("proxy", [f"http://{DEAD}", f"socks5://{DEAD}", f"socks://{DEAD}/"])
def test_no_server_of_this_machine_is_asked_through_a_proxy(receiver: Receiver, variable: str, proxy: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"} | {variable: proxy}
    done = run_program(sys.executable, "-c", ASK_HERE, receiver.address, env=environment)
    assert (done.returncode, len(receiver.received)) == (0, 4), done.stderr


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "intern.example, localhost"}, "intern.example,localhost,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_what_is_asked_without_a_proxy_stays_so(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], hosts: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, given.get(name, ""))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    for _ in range(2):
        prepare_proxies()
        assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == (hosts, hosts)
