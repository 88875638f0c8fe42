"""A PostgreSQL server for tests, from Debian's packages."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.waiting import free_port

DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
SERVER = shutil.which("postgres") or (str(DEBIAN[-1] / "postgres") if DEBIAN else None)
needs_postgres = pytest.mark.skipif(SERVER is None, reason="no PostgreSQL here: make system-packages installs it")
USER, PASSWORD = "wine", "a-word-for-tests"


class Postgres:
    """A PostgreSQL server on an empty folder of its own.

    It refuses to run as root, and is then run by Debian's user postgres, to whom pytest's own folders are closed.
    """

    def __init__(self) -> None:
        assert SERVER is not None
        self.port, self.folder = free_port(), Path(tempfile.mkdtemp(prefix="wine-postgres-"))
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self._call("initdb", "--username", USER, "--auth", "scram-sha-256", "--pwfile", secret, "--encoding", "UTF8")

    @property
    def environment(self) -> dict[str, str]:
        """What PostgreSQL's own programs read."""
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": USER, "PGPASSWORD": PASSWORD}

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._call("pg_ctl", "--wait", "--log", self.folder / "log", "--options", options, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "--wait", "--mode", "fast", "stop")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Without the server for as long as the block lasts."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def address(self, database: str) -> str:
        return f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(self.address(database).replace("+psycopg", ""), autocommit=True)

    def run(self, statement: str) -> None:
        with self.connect() as connection:
            connection.execute(statement.encode())

    def make_database(self, name: str) -> str:
        """Make an empty database, and return its address."""
        self.run(f"CREATE DATABASE {name}")
        return self.address(name)

    def _call(self, program: str, *arguments: str | Path) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*as_user, Path(str(SERVER)).with_name(program), "--pgdata", self.folder / "data", *arguments]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def run_postgres() -> Iterator[Postgres]:
    """A server for as long as the block lasts."""
    postgres = Postgres()
    try:
        postgres.start()
        yield postgres
        postgres.stop()
    finally:
        shutil.rmtree(postgres.folder)
