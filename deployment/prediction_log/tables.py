"""The prediction log's tables, the same in SQLite and PostgreSQL: open the database, insert rows, trim it.

Statements here are few and large. Python's sqlite3 releases the GIL at each row that it writes or reads, and may wait
5 ms to get it back while the API computes: one INSERT of 512 rows waits once, not 512 times.
"""

import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Double, Integer, Table, Text
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError

from commands import BadInputError, NotThereError, hide_passwords
from wine_data.schema import FEATURES, TARGET

SCHEMA_VERSION = 1
BUSY_SECONDS = 2.0  # timeout of a statement that waits for another process's transaction
OPEN_SECONDS = 20.0  # timeout of open() while other processes open the same database
TRIM_ROWS = 2_000  # deleted per transaction, in about 20 ms
INSERT_ROWS = 512  # per statement; 20 values per row; SQLite allows 32,766 values, PostgreSQL 65,535
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
PASSING = (*BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)
LOCK_NUMBER = 20_091_007  # of the PostgreSQL advisory lock for creating tables; any fixed number

METADATA = sa.MetaData()
PREDICTIONS = Table(
    "predictions",
    METADATA,
    Column("time", Double, nullable=False, index=True),  # seconds since 1970, UTC
    Column("request_id", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    *(Column(name, Double) for name in FEATURES),
    Column("prediction", Integer, nullable=False),
    Column("probabilities", Text, nullable=False),  # JSON, by grade
    Column("expected_quality", Double, nullable=False),
    Column("latency_ms", Double, nullable=False),
)
REFUSALS = Table(
    "refusals",
    METADATA,
    Column("id", sa.BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("time", Double, nullable=False, index=True),
    Column("request_id", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("field", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("wines", Integer, nullable=False, server_default="1"),  # in the request; added later than the other columns
)
FEEDBACK = Table(
    "feedback",
    METADATA,
    Column("request_id", Text, primary_key=True),
    Column("time", Double, nullable=False),
    Column(TARGET, Integer, nullable=False),
)
SCHEMA = Table("prediction_log_schema", METADATA, Column("version", Integer, primary_key=True))


def make_engine(url: str) -> sa.Engine:
    """Make the engine of a log, without connecting.

    Raises:
        NotThereError: the url is not the address of a SQLite file or a PostgreSQL database, or its driver is missing.
    """
    unusable = NotThereError(
        f"the prediction log cannot be kept at {hide_password(url)!r}: set WINE_LOG_URL to sqlite:////a/file.db, "
        "to postgresql+psycopg://user:password@host/database, or to off"
    )
    try:
        address = sa.make_url(url)
        file = address.database or ""
        if address.get_backend_name() == "postgresql":
            return sa.create_engine(address, pool_pre_ping=True, connect_args={"connect_timeout": 5})
        if address.get_backend_name() == "sqlite" and file not in ("", ":memory:") and not file.startswith("file:"):
            return _make_sqlite_engine(address)
    except (ArgumentError, ValueError) as error:
        raise unusable from error
    except ImportError as error:
        raise NotThereError(
            f"the prediction log {hide_password(url)} needs a driver that is not installed ({error}): "
            "pip install 'psycopg[binary]', and write postgresql+psycopg://user:password@host/database"
        ) from error
    raise unusable


def find_file(engine: sa.Engine) -> Path | None:
    """The file of a SQLite database; None for another database."""
    return Path(str(engine.url.database)) if engine.dialect.name == "sqlite" else None


def identify_file(engine: sa.Engine) -> tuple[int, int] | None:
    """The device and inode of a SQLite database's file; None if it is missing, and for other databases."""
    with suppress(OSError):
        if file := find_file(engine):
            found = file.stat()
            return found.st_dev, found.st_ino
    return None


def prepare_tables(engine: sa.Engine) -> None:
    """Create the folder, file and tables if missing, and check the version of existing tables.

    Raises:
        BadInputError: the tables have another version.
        NotThereError: the database cannot be reached.
    """
    deadline = time.monotonic() + OPEN_SECONDS
    while True:
        try:
            _make_tables(engine)
            return
        except (SQLAlchemyError, OSError) as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise NotThereError(
                    f"the prediction log {hide_password(engine.url)} cannot be used ({explain_error(error)}): "
                    "correct this, set WINE_LOG_URL to another database, or set it to off"
                ) from error
        time.sleep(0.05)  # SQLite has no timeout for the switch to WAL


def check_version(connection: sa.Connection) -> bool:
    """Whether the tables exist. Raises BadInputError if they have another version, or no column for a feature."""
    tables = set(sa.inspect(connection).get_table_names()) & set(METADATA.tables)
    if not tables:
        return False
    found = connection.scalar(sa.select(sa.func.max(SCHEMA.c.version))) if SCHEMA.name in tables else "none"
    problem = f"has tables of version {found}, this code writes version {SCHEMA_VERSION}"
    if found == SCHEMA_VERSION:
        columns = _list_columns(connection, PREDICTIONS)
        missing = [column.name for column in PREDICTIONS.columns if column.name not in columns]
        if not missing:
            return True
        problem = f"has no column {', '.join(missing)}"
    raise BadInputError(
        f"the prediction log {hide_password(connection.engine.url)} {problem}: move that database away, "
        "set WINE_LOG_URL to a new one, or run the code that made it"
    )


def add_columns(connection: sa.Connection) -> None:
    """Add missing columns to the tables of an older log."""
    if REFUSALS.c.wines.name in _list_columns(connection, REFUSALS):
        return
    _lock(connection)
    if REFUSALS.c.wines.name not in _list_columns(connection, REFUSALS):  # another process may have been first
        connection.exec_driver_sql("ALTER TABLE refusals ADD COLUMN wines INTEGER NOT NULL DEFAULT 1")
    connection.commit()


def insert_rows(connection: sa.Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert rows of plain values in the order of the table's columns; return how many were new.

    Statements have 512 rows, then smaller powers of two, so that only few different statements must be prepared.
    """
    new, start = 0, 0
    while start < len(rows):
        size = min(INSERT_ROWS, 1 << ((len(rows) - start).bit_length() - 1))
        values = tuple(chain.from_iterable(rows[start : start + size]))
        new += connection.exec_driver_sql(write_insert(table, size, connection.dialect), values).rowcount
        start += size
    return new


@lru_cache(maxsize=64)
def write_insert(table: Table, rows: int, dialect: sa.Dialect) -> str:
    """Write the INSERT of that many rows for a driver; rows with an existing key are skipped."""
    columns = [column for column in table.columns if column is not REFUSALS.c.id]
    names = ", ".join(dialect.identifier_preparer.format_column(column) for column in columns)
    row = f"({', '.join(['?' if dialect.paramstyle == 'qmark' else '%s'] * len(columns))})"
    return f"INSERT INTO {table.name} ({names}) VALUES {', '.join([row] * rows)} ON CONFLICT DO NOTHING"


def trim_tables(engine: sa.Engine, days: float, rows: int) -> Iterator[None]:
    """Delete rows older than `days`, and the oldest above `rows`; each step is one small transaction.

    Predictions with a taster's grade are kept for `days`, even above `rows`, and are deleted together with their
    feedback. `rows` also limits refusals: there may be very many.
    """
    ungraded = PREDICTIONS.c.request_id.not_in(sa.select(FEEDBACK.c.request_id))
    for table, chosen in ((PREDICTIONS, ungraded), (REFUSALS, sa.true())):
        too_old = time.time() - days * 86_400
        yield from _delete_rows(engine, table, table.c.time < too_old)
        with engine.begin() as connection:
            edge = find_edge(connection, table, rows)
        yield from _delete_rows(engine, table, (table.c.time < edge) & chosen)


def find_edge(connection: sa.Connection, table: Table, rows: int) -> float:
    """The time of the oldest among the newest `rows` of a table; 0 if it has fewer rows."""
    newest = sa.select(table.c.time).order_by(table.c.time.desc())
    return float(connection.scalar(newest.offset(rows - 1).limit(1)) or 0)


def may_pass(error: Exception) -> bool:
    """Whether a retry of a failed write may succeed: the database is locked, unreachable, full or read-only."""
    if isinstance(getattr(error, "orig", None), sqlite3.Error):
        return _find_code(error) in PASSING
    return isinstance(error, (OperationalError, InterfaceError, sa.exc.TimeoutError))


def explain_error(error: Exception) -> str:
    """Describe an error in one line, without the statement and its values."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def hide_password(url: str | sa.URL) -> str:
    """An address without its password, even if it is not a valid address."""
    return hide_passwords(url if isinstance(url, str) else url.render_as_string(hide_password=False))


def _make_sqlite_engine(address: sa.URL) -> sa.Engine:
    # IMMEDIATE: a transaction takes the write lock at its start, where it can wait for it
    engine = sa.create_engine(address, connect_args={"timeout": BUSY_SECONDS, "isolation_level": "IMMEDIATE"})

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")  # a commit survives kill -9, not a power cut
        connection.execute("PRAGMA journal_size_limit=67108864")

    return engine


def _make_tables(engine: sa.Engine) -> None:
    file = find_file(engine)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
    with engine.connect() as connection:
        if file:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        if check_version(connection):
            add_columns(connection)
            return
        _lock(connection)
        if not check_version(connection):  # another process may have been first
            METADATA.create_all(connection)
            connection.execute(sa.insert(SCHEMA).values(version=SCHEMA_VERSION))
        connection.commit()


def _lock(connection: sa.Connection) -> None:
    """Begin a transaction that changes the tables; it makes other processes that do the same wait."""
    connection.rollback()
    sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else f"SELECT pg_advisory_xact_lock({LOCK_NUMBER})")


def _list_columns(connection: sa.Connection, table: Table) -> set[str]:
    return {column["name"] for column in sa.inspect(connection).get_columns(table.name)}


def _delete_rows(engine: sa.Engine, table: Table, chosen: sa.ColumnElement[bool]) -> Iterator[None]:
    """Delete the chosen rows, oldest first, in steps; rows with the same time are in the same step."""
    clock, done = table.c.time, -math.inf
    while True:
        with engine.begin() as connection:
            oldest = sa.select(clock).where(chosen, clock > done).order_by(clock).limit(TRIM_ROWS).subquery()
            last = connection.scalar(sa.select(sa.func.max(oldest.c.time)))
            if last is None:
                return
            step = chosen & (clock > done) & (clock <= last)
            if table is PREDICTIONS:
                ids = sa.select(PREDICTIONS.c.request_id).where(step)
                connection.execute(sa.delete(FEEDBACK).where(FEEDBACK.c.request_id.in_(ids)))
            connection.execute(sa.delete(table).where(step))
            done = last
        yield


def _find_code(error: Exception) -> int:
    return getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF


def _is_busy(error: Exception) -> bool:
    return _find_code(error) in BUSY
