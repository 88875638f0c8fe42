"""Read windows of the prediction log for monitoring, with a limit on the rows read at once."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, exists, func, literal, select, true, union_all
from sqlalchemy.exc import SQLAlchemyError

from commands import NotThereError
from deployment.prediction_log.tables import (
    FEEDBACK,
    PREDICTIONS,
    REFUSALS,
    add_columns,
    check_version,
    explain_error,
    find_file,
    hide_password,
    make_engine,
)
from wine_data.schema import FEATURES

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 200_000  # per call, about 200 MB
CHUNK_ROWS = 20_000
REFUSED = 422  # the status of a request without a valid wine
OFF = "off"  # the address if there is no log
ALWAYS, NEVER = -math.inf, math.inf  # as the ends of a window
NUMBERS = (*FEATURES, "expected_quality", "latency_ms", "time")
ANSWER_COLUMNS = (*NUMBERS, "prediction", "probabilities", "request_id", "version", "run_id")
REFUSAL_COLUMNS = ("time", "request_id", "route", "status", "field", "reason", "wines")


def read_answers(url: str, since: float = ALWAYS, until: float = NEVER) -> "pd.DataFrame":
    """Read the predictions of a window, oldest first, with the tasters' quality, NaN if there is none.

    Args:
        url: the log's database.
        since: the window's start, seconds since 1970, included.
        until: the window's end, excluded.

    Returns:
        The newest MOST_ROWS at most; iterate_answers has no limit.

    Raises:
        NotThereError: there is no log yet, or it cannot be reached.
        BadInputError: the log has another schema version.
    """
    return _type_answers(_read_newest(url, _select_answers(since, until), PREDICTIONS.c.time))


def iterate_answers(
    url: str, since: float = ALWAYS, until: float = NEVER, rows: int = CHUNK_ROWS
) -> Iterator["pd.DataFrame"]:
    """Yield all predictions of a window as read_answers does, in tables of at most `rows`, in constant memory."""
    answers = _select_answers(since, until).order_by(PREDICTIONS.c.time)
    with _open_log(url) as connection:
        for part in _read_chunks(connection, answers, rows):
            yield _type_answers(part)


def read_refusals(url: str, since: float = ALWAYS, until: float = NEVER) -> "pd.DataFrame":
    """Read the refusals of a window, oldest first, one row per error; the newest MOST_ROWS at most."""
    columns = [REFUSALS.c[name] for name in REFUSAL_COLUMNS]
    window = select(*columns).where(_lies_between(REFUSALS, since, until))
    return _read_newest(url, window, REFUSALS.c.time, REFUSALS.c.id)


def read_times(url: str, since: float = ALWAYS, until: float = NEVER, last: int = MOST_ROWS) -> list[float]:
    """The times of requested wines, predicted or refused as invalid (422), oldest first; only the newest `last`.

    A refused batch counts all its wines.
    """
    answered = select(PREDICTIONS.c.time, literal(1).label("wines")).where(_lies_between(PREDICTIONS, since, until))
    one = func.min(REFUSALS.c.time).label("time"), func.max(REFUSALS.c.wines).label("wines")  # of a request's errors
    errors = select(*one).where(_lies_between(REFUSALS, since, until))
    refused = errors.where(REFUSALS.c.status == REFUSED).group_by(REFUSALS.c.request_id)
    newest = answered.order_by(PREDICTIONS.c.time.desc()).limit(last)
    asked = union_all(newest.subquery().select(), refused.subquery().select()).subquery()
    times: list[float] = []
    with _open_log(url) as connection:
        for time, wines in connection.execute(select(asked).order_by(asked.c.time.desc()).limit(last)):
            times += [float(time)] * min(wines, last - len(times))
    return times[::-1]


def find_asked(url: str, spans: Sequence[tuple[float, float]]) -> list[bool]:
    """Which time spans (since, until) have requested wines, predicted or refused as invalid."""
    with _open_log(url) as connection:
        return [
            any(
                connection.scalar(select(exists().where(_lies_between(table, *span), condition)))
                for table, condition in ((PREDICTIONS, true()), (REFUSALS, REFUSALS.c.status == REFUSED))
            )
            for span in spans
        ]


def count_answers(url: str) -> int:
    """The number of predictions in the log."""
    with _open_log(url) as connection:
        return int(connection.scalar(select(func.count()).select_from(PREDICTIONS)) or 0)


@contextmanager
def _open_log(url: str) -> Iterator[Connection]:
    """Connect to an existing log; connecting to a missing SQLite file would create it."""
    if url == OFF:
        raise NotThereError(
            "the prediction log is off (WINE_LOG_URL=off), there is nothing to read: unset WINE_LOG_URL, or set it to "
            "sqlite:////a/file.db or postgresql+psycopg://user:password@host/database, then serve and send requests"
        )
    engine = make_engine(url)
    missing = NotThereError(
        f"there is no prediction log at {hide_password(url)} yet: serve the model and send requests first"
    )
    file = find_file(engine)
    if file and not file.is_file():
        raise missing
    try:
        with engine.connect() as connection:
            if not check_version(connection):
                raise missing
            add_columns(connection)
            yield connection
    except SQLAlchemyError as error:
        raise NotThereError(
            f"the prediction log {hide_password(url)} cannot be read ({explain_error(error)})"
        ) from error
    finally:
        engine.dispose()


def _select_answers(since: float, until: float) -> Select[Any]:
    columns = [PREDICTIONS.c[name] for name in ANSWER_COLUMNS]
    with_feedback = PREDICTIONS.outerjoin(FEEDBACK, PREDICTIONS.c.request_id == FEEDBACK.c.request_id)
    window = _lies_between(PREDICTIONS, since, until)
    return select(*columns, FEEDBACK.c.quality).select_from(with_feedback).where(window)


def _lies_between(table: Table, since: float, until: float) -> ColumnElement[bool]:
    return (table.c.time >= since) & (table.c.time < until)


def _read_newest(url: str, query: Select[Any], *order: Column[Any]) -> "pd.DataFrame":
    """Read the last MOST_ROWS of a query by the columns of an order, in that order."""
    import pandas as pd

    newest = query.order_by(*(column.desc() for column in order)).limit(MOST_ROWS)
    with _open_log(url) as connection:
        parts = list(_read_chunks(connection, newest, CHUNK_ROWS)) or [
            pd.DataFrame(columns=query.selected_columns.keys())
        ]
    return pd.concat(parts).iloc[::-1].reset_index(drop=True)


def _read_chunks(connection: Connection, query: Select[Any], rows: int) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    result = connection.execution_options(stream_results=True, max_row_buffer=rows).execute(query)
    for part in result.partitions(rows):
        yield pd.DataFrame.from_records([tuple(row) for row in part], columns=list(result.keys()))


def _type_answers(answers: "pd.DataFrame") -> "pd.DataFrame":
    """Set the column types even if a window has no rows or no feedback.

    SQLite can store text in a number column: it becomes NaN, or prediction 0.
    """
    import pandas as pd

    numbers = {name: pd.to_numeric(answers[name], errors="coerce").astype("float64") for name in (*NUMBERS, "quality")}
    grades = pd.to_numeric(answers["prediction"], errors="coerce").fillna(0).astype("int64")
    return answers.assign(**numbers, prediction=grades)
