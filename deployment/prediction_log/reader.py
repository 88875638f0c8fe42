"""Reads the prediction log in windows, for monitoring; what is read at once is bounded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, Table, func, select, union_all
from sqlalchemy.exc import SQLAlchemyError

from commands import NotThereError
from deployment.prediction_log.tables import (
    FEEDBACK,
    PREDICTIONS,
    REFUSALS,
    check_version,
    explain_error,
    find_file,
    hide_password,
    make_engine,
)
from wine_data.schema import FEATURES

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 200_000  # that one call reads, about 200 MB
CHUNK_ROWS = 20_000
ANSWER_COLUMNS = (
    *FEATURES,
    "prediction",
    "probabilities",
    "expected_quality",
    "latency_ms",
    "time",
    "request_id",
    "version",
)
REFUSAL_COLUMNS = ("time", "request_id", "route", "status", "field", "reason")


def read_answers(
    url: str, since: float | None = None, until: float | None = None, last: int | None = None
) -> "pd.DataFrame":
    """Read the answers of a window, oldest first, with the quality that tasters gave, NaN where none did.

    Args:
        url: the log's database.
        since: the window's start, seconds since 1970; it belongs to the window.
        until: the window's end; it does not.
        last: only so many, the newest; None and more than MOST_ROWS mean MOST_ROWS. iterate_answers has no limit.

    Raises:
        NotThereError: there is no log yet, or it cannot be reached.
        BadInputError: the log is of another version.
    """
    answers = _select_answers(since, until)
    newest = answers.order_by(None).order_by(PREDICTIONS.c.time.desc()).limit(min(last or MOST_ROWS, MOST_ROWS))
    with _open_log(url) as connection:
        table = _join_chunks(_read_chunks(connection, newest, CHUNK_ROWS), (*ANSWER_COLUMNS, "quality"))
    return _type_answers(table.iloc[::-1].reset_index(drop=True))


def iterate_answers(
    url: str, since: float | None = None, until: float | None = None, rows: int = CHUNK_ROWS
) -> Iterator["pd.DataFrame"]:
    """Read all answers of a window as read_answers does, in tables of at most `rows`, in flat memory."""
    with _open_log(url) as connection:
        for part in _read_chunks(connection, _select_answers(since, until), rows):
            yield _type_answers(part)


def read_refusals(url: str, since: float | None = None, until: float | None = None) -> "pd.DataFrame":
    """Read the refusals of a window, oldest first, one row an error; the newest MOST_ROWS at most."""
    columns = [REFUSALS.c[name] for name in REFUSAL_COLUMNS]
    window = _limit_time(select(*columns), REFUSALS, since, until)
    newest = window.order_by(REFUSALS.c.time.desc(), REFUSALS.c.id.desc()).limit(MOST_ROWS)
    with _open_log(url) as connection:
        table = _join_chunks(_read_chunks(connection, newest, CHUNK_ROWS), REFUSAL_COLUMNS)
    return table.iloc[::-1].reset_index(drop=True)


def read_times(url: str, since: float | None = None, until: float | None = None, last: int = MOST_ROWS) -> list[float]:
    """When wines were asked for, answered or refused as no wine (422), oldest first; only the newest `last`."""
    refused = select(func.min(REFUSALS.c.time).label("time")).where(REFUSALS.c.status == 422)
    asked = union_all(
        _limit_time(select(PREDICTIONS.c.time), PREDICTIONS, since, until)
        .order_by(PREDICTIONS.c.time.desc())
        .limit(last)
        .subquery()
        .select(),
        _limit_time(refused, REFUSALS, since, until).group_by(REFUSALS.c.request_id).subquery().select(),
    ).subquery()
    with _open_log(url) as connection:
        times = connection.scalars(select(asked.c.time).order_by(asked.c.time.desc()).limit(last)).all()
    return [float(time) for time in times[::-1]]


def count_answers(url: str) -> int:
    """How many answers the log holds."""
    with _open_log(url) as connection:
        return int(connection.scalar(select(func.count()).select_from(PREDICTIONS)) or 0)


@contextmanager
def _open_log(url: str) -> Iterator[Connection]:
    """Connect to a log that is there; connecting to a SQLite file that is not would make it."""
    engine = make_engine(url)
    missing = NotThereError(f"there is no prediction log at {hide_password(url)} yet: serve the model and ask it first")
    file = find_file(engine)
    if file and not file.is_file():
        raise missing
    try:
        with engine.connect() as connection:
            if not check_version(connection):
                raise missing
            yield connection
    except SQLAlchemyError as error:
        raise NotThereError(
            f"the prediction log {hide_password(url)} cannot be read ({explain_error(error)})"
        ) from error
    finally:
        engine.dispose()


def _select_answers(since: float | None, until: float | None) -> Select[Any]:
    columns = [PREDICTIONS.c[name] for name in ANSWER_COLUMNS]
    with_feedback = PREDICTIONS.outerjoin(FEEDBACK, PREDICTIONS.c.request_id == FEEDBACK.c.request_id)
    answers = select(*columns, FEEDBACK.c.quality).select_from(with_feedback)
    return _limit_time(answers, PREDICTIONS, since, until).order_by(PREDICTIONS.c.time)


def _limit_time(query: Select[Any], table: Table, since: float | None, until: float | None) -> Select[Any]:
    if since is not None:
        query = query.where(table.c.time >= since)
    if until is not None:
        query = query.where(table.c.time < until)
    return query


def _read_chunks(connection: Connection, query: Select[Any], rows: int) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    result = connection.execution_options(stream_results=True, max_row_buffer=rows).execute(query)
    names = list(result.keys())
    for part in result.partitions(rows):
        yield pd.DataFrame.from_records([tuple(row) for row in part], columns=names)


def _join_chunks(parts: Iterator["pd.DataFrame"], columns: tuple[str, ...]) -> "pd.DataFrame":
    import pandas as pd

    tables = list(parts)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(columns))


def _type_answers(answers: "pd.DataFrame") -> "pd.DataFrame":
    """Give columns their types even where a window has no rows, or no feedback.

    SQLite would keep a word where a number belongs: it reads as NaN, and as prediction 0.
    """
    import pandas as pd

    floats = (*FEATURES, "expected_quality", "latency_ms", "time", "quality")
    numbers = {name: pd.to_numeric(answers[name], errors="coerce").astype("float64") for name in floats}
    grades = pd.to_numeric(answers["prediction"], errors="coerce").fillna(0).astype("int64")
    return answers.assign(**numbers, prediction=grades)
