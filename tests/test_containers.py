"""The images and compose.yaml: linted, and the Dockerfile's own commands run in a clean environment.

There is no docker where these tests run. Not seen here: the base images, the users and volumes, a root that is
read-only, and the services of compose.yaml together.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from deployment.prediction_log.tables import make_engine, prepare_tables
from settings import ROOT, Settings
from tests.dockerfile import Built, build, list_sent, read_dockerfile
from tests.lint_workflows import list_linters, run_linter
from tests.postgres import needs_postgres, run_postgres
from tests.test_schema import WINE
from tests.told import assert_told
from tests.waiting import free_port, wait_for
from tests.web import WEB

STAGES = read_dockerfile((ROOT / "Dockerfile").read_text())
IMAGES = ("serving", "project")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The API's image, built in a folder."""
    return build(STAGES, "serving", tmp_path_factory.mktemp("image"))


@contextmanager
def run_container(image: Built, port: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = image.environment | {"WINE_PORT": str(port), "TMPDIR": str(image.app.parent)}
    container = subprocess.Popen(["/usr/bin/env", *STAGES["serving"].read_command("CMD")], cwd=image.app,
                                 env=environment)  # fmt: skip
    try:
        yield container
    finally:
        container.terminate()
        container.wait(timeout=20)


def list_files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.clone
def test_the_image_of_the_api_is_healthy_and_predicts(image: Built, bundles: Path) -> None:
    shutil.copytree(bundles, image.app / "models", dirs_exist_ok=True)
    before, port = list_files(image.app), free_port()
    with run_container(image, port) as container:
        wait_for(f"http://127.0.0.1:{port}/ready", container)
        answer = WEB.post(f"http://127.0.0.1:{port}/predict", json=WINE).raise_for_status().json()
        assert 3 <= answer["prediction"] <= 9
        health = ["/usr/bin/env", *STAGES["serving"].read_command("HEALTHCHECK")]
        assert subprocess.run(health, env=image.environment | {"WINE_PORT": str(port)}, check=False).returncode == 0
    written = {path for path, when in list_files(image.app).items() if before.get(path) != when}
    assert {path.relative_to(image.app).parts[0] for path in written} == {"data"}  # the rest may be read-only


@pytest.mark.clone
def test_the_health_check_fails_where_nothing_answers(image: Built) -> None:
    health = ["/usr/bin/env", *STAGES["serving"].read_command("HEALTHCHECK")]
    done = subprocess.run(
        health, env=image.environment | {"WINE_PORT": str(free_port())}, capture_output=True, check=False
    )
    assert done.returncode == 1


@pytest.mark.clone
def test_without_a_bundle_the_image_says_what_is_missing(image: Built, tmp_path: Path) -> None:
    done = subprocess.run(
        ["/usr/bin/env", *STAGES["serving"].read_command("CMD")], cwd=image.app, capture_output=True, text=True,
        env=image.environment | {"WINE_SERVING_MODELS": str(tmp_path), "WINE_PORT": str(free_port())}, check=False,
    )  # fmt: skip
    assert_told(done, 3, str(tmp_path))


@pytest.mark.clone
def test_the_image_of_the_api_can_log_to_postgresql_and_is_small(image: Built) -> None:
    python = image.app / ".venv" / "bin" / "python"
    subprocess.run([python, "-c", "import psycopg"], check=True)
    assert subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode == 1
    megabytes = sum(path.stat().st_size for path in (image.app / ".venv").rglob("*") if path.is_file()) / 1e6
    print(f"{megabytes:.0f} MB")
    assert megabytes < 300


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_a_user_who_is_not_root(name: str) -> None:
    assert STAGES[name].find("USER") == ["10001:10001"]
    assert "RUN" not in [instruction.keyword for instruction in STAGES[name].instructions]  # what would be root's


@pytest.mark.parametrize("name", [name for name in STAGES if name.endswith("-packages")])
def test_packages_are_installed_by_their_hashes_alone(name: str) -> None:
    installs = [part for run in STAGES[name].find("RUN") for part in run.split("&&") if "pip install" in part]
    assert installs
    assert all("--require-hashes" in install and "--no-deps" in install for install in installs)


def test_the_base_image_is_named_by_its_whole_version() -> None:
    bases = {stage.parent for stage in STAGES.values()} - set(STAGES)
    assert [base for base in bases if not re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)] == []


def test_docker_is_sent_no_secret_no_wine_and_no_model() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in lines if line and line[0] not in "#!"] == ["*"]
    assert {path.suffix for path in list_sent("\n".join(lines))} <= {".py", ".json", ".html", ".txt", ".toml", ".yaml"}


def test_docker_is_sent_every_module_and_what_they_read() -> None:
    sent = list_sent((ROOT / ".dockerignore").read_text())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    rooms = tuple(f"{line.split()[-1]}/" for line in STAGES["project"].find("COPY") if line.count("/") == 0)
    wanted = {name for name in tracked if name.startswith(rooms) and not name.endswith((".ipynb", ".md"))}
    assert wanted - {str(path) for path in sent} == set()


@pytest.mark.parametrize("name", IMAGES)
def test_a_setting_of_an_image_is_one_that_the_project_has(name: str) -> None:
    words = " ".join(STAGES[name].find("ENV")).split()
    assert [word for word in words if word.startswith("WINE_") and not is_setting(word.split("=")[0])] == []


def is_setting(variable: str) -> bool:
    return variable.removeprefix("WINE_").lower() in Settings.model_fields


def test_every_place_that_the_project_writes_to_is_on_a_volume() -> None:
    written = {
        f"WINE_{name.upper()}"
        for name, field in Settings.model_fields.items()
        if name not in ("mlflow_uri",) and str(ROOT) in str(field.default)
    }
    words = dict(word.split("=", 1) for word in " ".join(STAGES["project"].find("ENV")).split())
    assert {name for name in written if not re.search(r"/app/(data|models)", words.get(name, ""))} == set()


def test_compose_yaml_names_every_image_by_its_version() -> None:
    foreign = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert [image for image in foreign if not re.fullmatch(r"[\w/]+:\d+\.\d+[\w.-]*", image)] == []
    assert {SERVICES[name]["build"]["target"] for name in OURS} == set(IMAGES)


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_can_write_to_its_volumes_and_nowhere_else(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {volume.split(":")[0] for volume in service["volumes"]} <= set(COMPOSE["volumes"])


def test_the_services_are_open_to_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_no_password_stands_in_compose_yaml() -> None:
    text = (ROOT / "compose.yaml").read_text()
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|KEY)\w*)(.*?)\}", text)
    assert {name for name, _ in secrets} == {
        "POSTGRES_PASSWORD", "LOG_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SECRET", "PREFECT_PASSWORD", "WINE_API_KEY",
    }  # fmt: skip
    assert [rest for _, rest in secrets if rest != ":?set it in .env"] == []


@pytest.mark.parametrize("name", OURS)
def test_a_service_starts_a_module_with_settings_that_exist(name: str) -> None:
    service = SERVICES[name]
    assert [key for key in service["environment"] if key.startswith("WINE_") and not is_setting(key)] == []
    command = service.get("command") or STAGES[service["build"]["target"]].read_command("CMD")
    module = command[command.index("-m") + 1] if "-m" in command else "mlflow"
    assert find_spec(module)


@pytest.mark.parametrize("name", ["hadolint", "schema compose-spec"])
def test_a_linter_finds_nothing(name: str) -> None:
    done = run_linter(list_linters()[name])
    assert done.returncode == 0, done.stdout + done.stderr


@needs_postgres
def test_the_role_of_the_prediction_log_can_write_it_and_nothing_else() -> None:
    prepare = COMPOSE["configs"]["databases"]["content"].replace("${LOG_PASSWORD:?set it in .env}", "another-word")
    with run_postgres() as postgres:
        postgres.make_database("wine_log")  # POSTGRES_DB
        for statement in prepare.split(";")[:-1]:
            postgres.run(statement)
        role = f"postgresql+psycopg://wine_log:another-word@127.0.0.1:{postgres.port}"
        prepare_tables(make_engine(f"{role}/wine_log"))
        with psycopg.connect(f"{role}/mlflow".replace("+psycopg", "")) as connection:
            asked = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            assert asked.fetchone() == (False,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("CREATE TABLE mine (x int)")
