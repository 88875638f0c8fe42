"""A small champion, and its answers as the API would log them."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sqlalchemy import Table

from deployment.prediction_log.tables import FEEDBACK, PREDICTIONS, REFUSALS, make_engine, prepare_tables
from tests.conftest import make_bundle
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import split_wines
from wine_quality_training.bundle.bundle import Bundle, load_bundle, select_bundle
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import impute_before


def make_champion(models: Path, data: WineData, version: str = "1") -> Bundle:
    """Fit a small forest, whose profile cross-validation makes, and have it serve from a folder of bundles."""
    split = split_wines(data.train, data.validation, folds=2, seed=42)
    forest = impute_before(RandomForestClassifier(30, random_state=1, n_jobs=1))
    evaluation = evaluate_leak_free("RandomForestClassifier", forest, split)
    select_bundle(make_bundle(models, evaluation, data, split.train, version, compiles=False))
    return load_bundle(models / version)


def answer_wines(bundle: Bundle, wines: pd.DataFrame, times: npt.NDArray[np.float64]) -> pd.DataFrame:
    """What the log has of these wines, one asked for at each time, and the confidence that is read from it."""
    table = feature_frame(wines).reset_index(drop=True)
    grades = np.array(bundle.pipeline.classes_, dtype="int64")
    shares = bundle.pipeline.predict_proba(table) if len(table) else np.empty((0, len(grades)))
    return table.assign(
        time=times,
        request_id=[repr(at) for at in times.tolist()],
        version=bundle.metadata.version,
        run_id=bundle.metadata.run_id,
        prediction=grades[shares.argmax(axis=1)],
        probabilities=[json.dumps(dict(zip(map(str, grades), row, strict=True))) for row in shares.tolist()],
        expected_quality=shares @ grades,
        confidence=shares.max(axis=1, initial=0),
        latency_ms=np.random.default_rng(0).gamma(4, 1.5, len(table)) + 2,
    )


def log_wines(url: str, bundle: Bundle, wines: pd.DataFrame, since: float, labels: float = 0.0) -> tuple[str, ...]:
    """Log an answer a second, a share of them with the taster's grade; return the request ids."""
    answers = answer_wines(bundle, wines, since + np.arange(len(wines), dtype="float64"))
    log_rows(url, PREDICTIONS, answers)
    graded = np.random.default_rng(0).random(len(wines)) < labels
    ids = answers["request_id"].to_numpy()
    log_grades(url, ids[graded], wines[TARGET].to_numpy()[graded])
    return tuple(ids)


def log_grades(url: str, ids: npt.ArrayLike, grades: npt.ArrayLike) -> None:
    """Log tasters' grades for answers."""
    log_rows(url, FEEDBACK, pd.DataFrame({"request_id": ids, "time": 0.0, "quality": grades}))


def log_refusals(url: str, count: int, field: str, since: float, wines: int = 1) -> None:
    """Log a refused request a second, each of so many wines."""
    times = since + np.arange(count)
    refusals = {"time": times, "request_id": times.astype(str), "route": "/predict", "status": 422, "field": field}
    log_rows(url, REFUSALS, pd.DataFrame(refusals | {"reason": "must be at most 3", "wines": wines}))


def log_rows(url: str, table: Table, rows: pd.DataFrame) -> None:
    """Append rows to a table of a log, which is made where it is not there; other columns are left out."""
    engine, known = make_engine(url), [column.name for column in table.columns if column.name in rows]
    prepare_tables(engine)
    with engine.begin() as connection:
        rows[known].to_sql(table.name, connection, if_exists="append", index=False)
    engine.dispose()
