"""The findings of the last monitoring run: numbers in the log's database, which the API shows at /metrics."""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy import Column, Double, Table, Text

from commands import NotThereError
from deployment.prediction_log.tables import explain_error, hide_password, make_engine

ALARM, DRIFTED_CHECKS, COVERAGE, LAST_RUN = "alarm", "drifted_checks", "coverage", "last_run"
Findings = Mapping[tuple[str, str], float]  # by one of these names and a level, "" if it has none

FINDINGS = Table(  # not one of the log's own tables: a log without it is complete
    "monitoring_findings",
    sa.MetaData(),
    Column("name", Text, primary_key=True),
    Column("level", Text, primary_key=True),
    Column("value", Double, nullable=False),
)


def write_findings(url: str, findings: Findings) -> None:
    """Replace the earlier findings. Raises NotThereError if the database cannot be written."""
    engine = make_engine(url)
    rows = [{"name": name, "level": level, "value": value} for (name, level), value in findings.items()]
    try:
        with engine.begin() as connection:
            FINDINGS.create(connection, checkfirst=True)
            connection.execute(sa.delete(FINDINGS))
            connection.execute(sa.insert(FINDINGS), rows)
    except sa.exc.SQLAlchemyError as error:
        raise NotThereError(
            f"what monitoring found cannot be written to {hide_password(url)} ({explain_error(error)})"
        ) from error
    finally:
        engine.dispose()


def read_findings(engine: sa.Engine) -> Findings:
    """Read the findings of the last monitoring run; none if there was no run yet, or the database is unavailable."""
    try:
        with engine.connect() as connection:
            rows = connection.execute(sa.select(FINDINGS)).all()
    except sa.exc.SQLAlchemyError:
        return {}
    return {(row.name, row.level): row.value for row in rows}
