"""The images and compose.yaml: linted, and the Dockerfile's own commands run in a clean environment.

There is no docker where these tests run. Not seen here: the base images, the users and volumes, a root that is
read-only, and the services of compose.yaml together.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from deployment.prediction_log.tables import make_engine, prepare_tables
from orchestration.services import name_server_settings
from settings import ROOT, Settings, name_variable
from tests.dockerfile import Built, build, list_sent, read_dockerfile
from tests.lint_workflows import list_linters, run_linter
from tests.messages import assert_failed
from tests.postgres import needs_postgres, run_postgres
from tests.processes import run_program
from tests.test_schema import WINE
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


def list_files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def read_serving(keyword: str) -> list[str]:
    """The command of CMD or HEALTHCHECK, found on the path that the image has."""
    return ["/usr/bin/env", *STAGES["serving"].read_command(keyword)]


@pytest.mark.clone
def test_the_image_of_the_api_is_healthy_and_predicts(image: Built, bundles: Path) -> None:
    shutil.copytree(bundles, image.app / "models", dirs_exist_ok=True)
    before, port = list_files(image.app), free_port()
    environment = image.environment | {"WINE_PORT": str(port), "TMPDIR": str(image.app.parent)}
    container = subprocess.Popen(read_serving("CMD"), cwd=image.app, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/ready", container)
        answer = WEB.post(f"http://127.0.0.1:{port}/predict", json=WINE).raise_for_status().json()
        assert 3 <= answer["prediction"] <= 9
        assert run_program(*read_serving("HEALTHCHECK"), env=environment).returncode == 0
    finally:
        container.terminate()
        container.wait(timeout=20)
    written = {path for path, when in list_files(image.app).items() if before.get(path) != when}
    assert {path.relative_to(image.app).parts[0] for path in written} == {"data"}  # the rest may be read-only


@pytest.mark.clone
def test_without_a_server_or_a_bundle_the_image_says_so(image: Built, tmp_path: Path) -> None:
    environment = image.environment | {"WINE_SERVING_MODELS": str(tmp_path), "WINE_PORT": str(free_port())}
    assert run_program(*read_serving("HEALTHCHECK"), env=environment).returncode == 1
    assert_failed(run_program(*read_serving("CMD"), cwd=image.app, env=environment), 3, str(tmp_path))


@pytest.mark.clone
def test_the_image_of_the_api_can_log_to_postgresql_and_is_small(image: Built) -> None:
    python = image.app / ".venv" / "bin" / "python"
    assert run_program(python, "-c", "import psycopg").returncode == 0
    assert run_program(python, "-c", "import pip").returncode == 1
    megabytes = sum(path.stat().st_size for path in (image.app / ".venv").rglob("*") if path.is_file()) / 1e6
    assert megabytes < 300


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_a_user_who_is_not_root(name: str) -> None:
    assert STAGES[name].find("USER") == ["10001:10001"]
    assert STAGES[name].find("RUN") == []  # what would be root's


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
    tracked = run_program("git", "ls-files").stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    rooms = tuple(f"{line.split()[-1]}/" for line in STAGES["project"].find("COPY") if line.count("/") == 0)
    wanted = {name for name in tracked if name.startswith(rooms) and not name.endswith((".ipynb", ".md"))}
    assert wanted - {str(path) for path in sent} == set()


def read_variables(name: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in " ".join(STAGES[name].find("ENV")).split())


def list_unknown(variables: Iterable[str]) -> list[str]:
    """The variables that look like a setting of the project and are none."""
    known = set(map(name_variable, Settings.model_fields))
    return [variable for variable in variables if variable.startswith("WINE_") and variable not in known]


@pytest.mark.parametrize("name", IMAGES)
def test_a_setting_of_an_image_is_one_that_the_project_has(name: str) -> None:
    assert list_unknown(read_variables(name)) == []


def test_every_place_that_the_project_writes_to_is_on_a_volume() -> None:
    fields = {name_variable(name): field for name, field in Settings.model_fields.items() if name != "mlflow_uri"}
    written = {variable for variable, field in fields.items() if str(ROOT) in str(field.default)}
    variables = read_variables("project")
    assert {name for name in written if not re.search(r"/app/(data|models)", variables.get(name, ""))} == set()


def test_compose_yaml_names_every_image_by_its_version() -> None:
    foreign = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert [image for image in foreign if not re.fullmatch(r"[\w/]+:v?\d+\.\d+[\w.-]*", image)] == []
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
    secrets = set(re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|KEY)\w*)(.*?)\}", text))
    names = "POSTGRES_PASSWORD LOG_PASSWORD MLFLOW_PASSWORD MLFLOW_SECRET PREFECT_PASSWORD WINE_API_KEY"
    scoped = {(f"WINE_{name}_KEY", ":-") for name in ("PREDICT", "FEEDBACK", "METRICS")}  # where unset, the key for all
    prometheus = {("WINE_METRICS_KEY", ":-${WINE_API_KEY")}
    assert secrets == {(name, ":?set it in .env") for name in names.split()} | scoped | prometheus


@pytest.mark.parametrize("name", OURS)
def test_a_service_starts_a_module_with_settings_that_exist(name: str) -> None:
    service = SERVICES[name]
    assert list_unknown(service["environment"]) == []
    command = service.get("command") or STAGES[service["build"]["target"]].read_command("CMD")
    modules = re.findall(r"-m ([\w.]+)", " ".join(command))
    assert modules
    assert all(map(find_spec, modules))


PREFECT = SERVICES["prefect"]["environment"]


def test_prefects_server_frees_slots_and_removes_runs_as_that_of_make_prefect_does() -> None:
    days = Settings().keep_days
    given = {name: text.replace("${WINE_KEEP_DAYS:-90}", str(days)) for name, text in PREFECT.items()}
    assert name_server_settings(days).items() <= given.items()


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
