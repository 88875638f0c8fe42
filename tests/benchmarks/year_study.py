"""Weeks of schedules in minutes: real stores and files, whose times are moved back by a week when one is over."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sklearn.tree import DecisionTreeClassifier
from sqlalchemy import create_engine, text

from deployment.prediction_log.reader import count_answers
from deployment.prediction_log.tables import make_engine, trim_tables
from deployment.prediction_log.windows import Span
from experiment_tracking.registry.gate import Verdict
from experiment_tracking.registry.promotion import list_champions, promote, record_refusal, roll_back
from experiment_tracking.registry.versions import (
    Version,
    find_version,
    judge_version,
    list_versions,
    load_version,
    register_model,
)
from experiment_tracking.runs.store import open_store
from experiment_tracking.runs.tracking import finish_parent, start_parent, track_model
from experiment_tracking.tidy.tidying import Inventory, count, hold_tidying, name_size, remove_pieces, take_inventory
from monitoring.report.files import ENDINGS, name_folder
from monitoring.report.record import keep_reports, record_watch
from monitoring.watch import Watch, watch_log
from settings import Settings
from tests.answers import log_refusals, log_wines
from wine_data.snapshots.snapshot import keep_snapshot
from wine_data.sources.load import WineData, fingerprint_wines
from wine_data.split import split_wines
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.bundle import load_current
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import impute_before

WEEK = 7 * 86_400
STORES = ("runs in MLflow", "reports in MLflow", "reports", "kept wines", "bundles")
WINES, WINDOW, REPORT_BYTES = 400, 200, 20_000
ANSWERS = 5_000  # a week
LOG_TIMES = {"predictions": ("time",), "refusals": ("time",)}  # in seconds
TIMES = {  # MLflow's columns that hold a time, all in milliseconds
    "runs": ("start_time", "end_time", "deleted_time"),
    "model_versions": ("creation_time", "last_updated_time"),
    "logged_models": ("creation_timestamp_ms", "last_updated_timestamp_ms"),
}


@dataclass
class Schedule:
    """Stores in a folder, and what is due in a week: a retraining on new wines, and so many looks of monitoring."""

    settings: Settings
    looks: int = 168
    weeks: int = 0

    @classmethod
    def find(cls, folder: Path, keep_days: int, keep_reports: int, mlflow_uri: str = "") -> "Schedule":
        """The stores in a folder, opened; made if need be."""
        settings = Settings(
            mlflow_uri=mlflow_uri or f"sqlite:///{folder / 'mlflow.db'}",
            mlflow_artifacts=folder / "mlartifacts",
            serving_models=folder / "deployment" / "models",
            snapshots=folder / "kept",
            downloads=folder / "downloads",
            monitoring_reports=folder / "reports",
            log_url=f"sqlite:///{folder / 'predictions.db'}",
            window_rows=WINDOW,
            keep_days=keep_days,
            keep_reports=keep_reports,
        )
        open_store(settings.mlflow_uri, settings.mlflow_artifacts)
        return cls(settings)

    def retrain(self, reason: str = "", judged: bool = True) -> Version:
        """Train on this week's wines, as the pipeline does; a reason overrules the gate, as a person may."""
        data, seed = make_wines(self.weeks), self.weeks
        keep_snapshot(data, self.settings.snapshots)
        split = split_wines(data.train, data.validation, folds=2, seed=42)
        experiment_id = open_store(self.settings.mlflow_uri, self.settings.mlflow_artifacts)
        parent, tracked = start_parent(experiment_id, data, {"folds": 2}), {}
        for depth in (3, 8):
            tree = impute_before(DecisionTreeClassifier(max_depth=depth, random_state=seed))
            evaluation = evaluate_leak_free(f"tree of {depth}", tree, split)
            tracked[evaluation.name] = track_model(experiment_id, parent, data, split, [evaluation]).run_id
        finish_parent(parent, "scores", tracked)
        version = register_model(tracked["tree of 8"])
        if judged:
            self.release(version, judge_version(version, split.holdout), reason)
        return version

    def release(self, version: Version, verdict: Verdict, reason: str) -> None:
        """Promote a version, or record that the gate refused it."""
        if verdict.admitted or reason:
            promote(version, verdict, self.settings.serving_models, reason)
        else:
            record_refusal(version, verdict)

    def monitor(self, watch: Watch) -> None:
        """Record the looks of a week, each with the reports of its window in the folder and in MLflow."""
        for look in range(self.looks):
            until = 1_700_000_000 + (self.weeks + look / self.looks) * WEEK
            latest = replace(watch.windows[-1], span=Span(until - 3600, until))
            run_id = record_watch(replace(watch, windows=(latest,)))
            folder = self.settings.monitoring_reports / name_folder(latest.span)
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("inputs", "predictions", "quality"):
                for ending in ENDINGS:
                    (folder / f"{name}{ending}").write_bytes(b"x" * REPORT_BYTES)
            keep_reports(run_id, folder)

    def watch(self) -> Watch:
        """A look at a log that the champion has answered, which the looks of all weeks are made of."""
        champion = load_current(self.settings.serving_models)
        log_wines(self.settings.log_url, champion, sample_twin(2 * WINDOW, seed=0), since=1_699_990_000)
        return watch_log(self.settings)

    def answer(self) -> None:
        """Log this week's answers, one in ten graded, and refusals; trim the log as the API does while it runs."""
        champion, since = load_current(self.settings.serving_models), time.time() - ANSWERS
        log_wines(self.settings.log_url, champion, sample_twin(ANSWERS, seed=self.weeks), since, labels=0.1)
        log_refusals(self.settings.log_url, ANSWERS // 10, "pH", since)
        engine = make_engine(self.settings.log_url)
        for _ in trim_tables(engine, self.settings.log_days, self.settings.log_rows):
            pass
        engine.dispose()

    def pass_week(self) -> None:
        """Move all times in the stores back by a week."""
        move_back(self.settings.mlflow_uri, TIMES, 1000 * WEEK)
        move_back(self.settings.log_url, LOG_TIMES, WEEK)
        for root in (self.settings.snapshots, self.settings.serving_models):
            for path in sorted(root.rglob("*"), reverse=True):
                os.utime(path, (path.stat().st_atime - WEEK, path.stat().st_mtime - WEEK))
        self.weeks += 1

    def tidy(self) -> Inventory:
        """Tidy, as its schedule does, and return what was there before."""
        with hold_tidying(self.settings):
            inventory = take_inventory(self.settings)
            remove_pieces(inventory.pieces)
        return inventory

    def run(self, weeks: int, promoted_every: int) -> Iterator[Inventory]:
        """Promote a first version, and let weeks pass; yields what was there at the end of each, before its tidying."""
        self.retrain("the first")
        watch = self.watch()
        for _ in range(weeks):
            self.pass_week()
            self.retrain("a person said so" if self.weeks % promoted_every == 0 else "")
            self.monitor(watch)
            self.answer()
            yield self.tidy()


def move_back(url: str, times: Mapping[str, Sequence[str]], week: int) -> None:
    """Subtract a week from the times of some tables; each store has its own unit."""
    engine = create_engine(url)
    with engine.begin() as store:
        for table, columns in times.items():
            moved = ", ".join(f"{column} = {column} - {week}" for column in columns)
            store.execute(text(f"UPDATE {table} SET {moved}"))
    engine.dispose()


def make_wines(seed: int) -> WineData:
    """Wines that no other week has."""
    wines = sample_twin(WINES, seed=seed)
    half = WINES // 2
    train, validation = wines[:half].reset_index(drop=True), wines[half:].reset_index(drop=True)
    return WineData(train, validation, f"week {seed}", fingerprint_wines(train, validation))


def describe_month(schedule: Schedule, removed: Sequence[Inventory], prefect: dict[str, str]) -> dict[str, str]:
    """What every store has after the last tidying, with what Prefect's has."""
    there = {store: (number, size) for store, number, size, *_ in take_inventory(schedule.settings).rows()}
    database, log = map(measure_file, (schedule.settings.mlflow_uri, schedule.settings.log_url))
    return {
        "week": str(schedule.weeks),
        "versions; champions so far": f"{len(list_versions())}; {len(list_champions())}",
        "MLflow's database": name_size(database),
        **{store: f"{there[store][0]}: {name_size(there[store][1])}" for store in STORES},
        "prediction log": f"{count_answers(schedule.settings.log_url):,}: {name_size(log)}",
        **prefect,
        "removed so far": name_size(sum(count(each.pieces)[3] for each in removed)),
    }


def measure_file(url: str) -> int:
    """The size of a SQLite database in bytes."""
    return Path(url.removeprefix("sqlite:///")).stat().st_size


def roll_back_all(schedule: Schedule) -> bool:
    """Bring back every champion, the latest first, and say whether each could be loaded and served."""
    champions = list_champions()
    for number in [champions[-1], *(roll_back(schedule.settings.serving_models)[0].number for _ in champions[1:])]:
        load_version(find_version(number))
    return load_current(schedule.settings.serving_models).metadata.version == champions[0]
