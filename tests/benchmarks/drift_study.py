"""Drifts that begin in simulated windows, and how soon the alarm comes: drift_alarm.py says what is simulated."""

import json
import math
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from deployment.prediction_log.reader import REFUSAL_COLUMNS, REFUSED
from deployment.prediction_log.windows import Span, Window
from monitoring.drift import Check, check_window
from monitoring.simulate.drifts import Drift
from monitoring.simulate.traffic import sample_drifted
from monitoring.watch import OF, Alarm, raise_alarm
from wine_data.schema import BOUNDS, FEATURES, MEASUREMENTS, TARGET, feature_frame
from wine_data.sources.load import WineData, load_wines
from wine_data.split import split_wines
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import make_model

MODEL, VERSION, FOLDS, MODEL_SEED = "ExtraTreesClassifier", "1", 5, 42
SIZES = (200, 1_000, 5_000)
LEAD, MOST = 3, 10  # undrifted windows before a drift, and drifted ones until an alarm is given up
SOONEST = 2  # drifted windows are drawn so many at once
LABELS = 0.25
GOAL = 5  # false alarms at 1,000 looks
LOW, HIGH = np.array([BOUNDS[name] for name in FEATURES]).T

Checked = tuple[Span, tuple[Check, ...]]
Record = dict[str, Any]


@dataclass(frozen=True)
class Traffic:
    """What comes to the API: a drift, the share of wines that it concerns, and the share of answers graded.

    Where `distinct` is given, all requests of a window are for so many wines.
    """

    name: str
    drift: Drift
    concerned: float = 1.0
    labels: float = 0.0
    distinct: int = 0


UNDRIFTED = Traffic("no drift", Drift(), labels=LABELS)
REPEATED = Traffic("no drift, 50 wines again and again", Drift(), labels=LABELS, distinct=50)
DRIFTED = (
    *(Traffic(f"one measurement higher by {size:g} sd", Drift("shift", size=size)) for size in (0.25, 0.5, 1)),
    Traffic("60 % red instead of 25 %", Drift("colour", size=0.6)),
    Traffic("chlorides in mg from half of the clients", Drift("unit", "chlorides"), concerned=0.5),
    Traffic("grades alone 1 lower, a quarter known", Drift("grades", size=1), labels=LABELS),
)


@dataclass(frozen=True)
class Reference:
    """A fitted model, its metadata, and the wines that it learned from."""

    pipeline: Pipeline
    metadata: ModelMetadata
    wines: pd.DataFrame


@dataclass(frozen=True)
class Detection:
    """A drift that began: the windows since, the wines of the first, and the alarm, which may not have come."""

    windows: tuple[Checked, ...]
    first: pd.DataFrame
    alarm: Alarm

    @property
    def delay(self) -> float:
        """Which of the windows brought the alarm, from 1; infinite where none did."""
        return len(self.windows) if self.alarm.raised else math.inf


@dataclass(frozen=True)
class Plan:
    """How much is simulated for each size of windows, over all references."""

    seed: int
    references: int
    windows: int
    repetitions: int
    reports: int


def make_reference(data: WineData) -> Reference:
    """Fit the model that the pipeline would release, and describe it as its bundle does."""
    split = split_wines(data.train, data.validation, FOLDS, MODEL_SEED)
    evaluation = evaluate_leak_free(MODEL, make_model(MODEL, MODEL_SEED), split)
    metadata = describe_model(evaluation, data, split.train, version=VERSION)
    # the pickle and one thread: for a window at once it takes a third of the time of the compiled form
    return Reference(evaluation.pipeline.set_params(model__n_jobs=1), metadata, split.train)


def sample_windows(traffic: Traffic, size: int, count: int, seed: int) -> Iterator[pd.DataFrame]:
    """Draw the wines that are asked for in so many windows."""
    wines = sample_drifted(traffic.drift, size * count, seed)
    if traffic.concerned < 1:
        concerned = np.random.default_rng((seed, 1)).random(len(wines)) < traffic.concerned
        wines = pd.concat([wines[concerned], sample_drifted(Drift(), len(wines), seed)[~concerned]]).sort_index()
    for start in range(0, len(wines), size):
        window = wines.iloc[start : start + (traffic.distinct or size)]
        if traffic.distinct:
            window = window.sample(size, replace=True, random_state=seed + start)
        yield window.reset_index(drop=True)


def check_wines(reference: Reference, wines: pd.DataFrame, labels: float, seed: int) -> tuple[Check, ...]:
    """Check the window that the log would hold: wines out of bounds are refused, the others answered, some graded."""
    wrong = find_wrong(wines)
    refused = wrong.any(axis=1)
    answered = feature_frame(wines)[~refused].reset_index(drop=True)
    grades = wines[TARGET].to_numpy("float64")[~refused]
    classes = reference.pipeline.classes_
    probabilities = reference.pipeline.predict_proba(answered) if len(answered) else np.empty((0, len(classes)))
    graded = np.random.default_rng((seed, 2)).random(len(answered)) < labels
    answers = answered.assign(
        prediction=classes[probabilities.argmax(axis=1)], confidence=probabilities.max(axis=1), version=VERSION,
        probabilities=[json.dumps(dict(zip(map(str, classes), row, strict=True))) for row in probabilities.tolist()],
        run_id="", quality=np.where(graded, grades, np.nan),
    )  # fmt: skip
    row, column = np.nonzero(wrong)
    refusals = pd.DataFrame(
        {"time": 0.0, "request_id": row.astype(str), "route": "/predict", "status": REFUSED,
         "field": np.array(FEATURES)[column], "reason": "out of bounds", "wines": 1},
        columns=list(REFUSAL_COLUMNS),
    )  # fmt: skip
    window = Window(Span(0, 1), answers, refusals)
    return check_window(window, reference.metadata.profiles[0], reference.metadata)


def find_wrong(wines: pd.DataFrame) -> np.ndarray:
    """Say which fields the API would refuse: shape (wines, features)."""
    table = feature_frame(wines).to_numpy()
    wrong: np.ndarray = (table < LOW) | (table > HIGH)
    return wrong


def watch_undrifted(
    reference: Reference, size: int, count: int, seed: int, traffic: Traffic = UNDRIFTED
) -> list[Checked]:
    """Check undrifted windows, one after the other."""
    windows = sample_windows(traffic, size, count, seed)
    return [
        (Span(number, number + 1), check_wines(reference, wines, traffic.labels, seed + number))
        for number, wines in enumerate(windows)
    ]


def look_back(windows: Sequence[Checked]) -> list[Alarm]:
    """Ask at each window that has enough before it whether there is an alarm."""
    return [raise_alarm(windows[:end]) for end in range(OF, len(windows) + 1)]


def await_alarm(reference: Reference, traffic: Traffic, size: int, lead: Sequence[Checked], seed: int) -> Detection:
    """Let a drift begin after some undrifted windows, and go on until there is an alarm."""
    windows = list(lead)
    drawn = chain.from_iterable(sample_windows(traffic, size, SOONEST, seed + turn) for turn in range(MOST // SOONEST))
    first = next(drawn)
    for number, wines in enumerate(chain([first], drawn)):
        moment = windows[-1][0].until
        windows.append((Span(moment, moment + 1), check_wines(reference, wines, traffic.labels, seed + number)))
        alarm = raise_alarm(windows)
        if alarm.raised:
            break
    return Detection(tuple(windows[len(lead) :]), first, alarm)


def ask_evidently(reference: Reference, wines: pd.DataFrame) -> tuple[bool, bool]:
    """Say whether by Evidently's defaults any column of the answered wines has drifted, and whether the table has."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings(action="ignore"):  # of what its own imports will lose some day
        from evidently import Report  # takes seconds, and the tests do without
        from evidently.presets import DataDriftPreset

    answered = feature_frame(wines)[~find_wrong(wines).any(axis=1)]
    report = Report([DataDriftPreset()], include_tests=True).run(answered, feature_frame(reference.wines))
    failed = [test["id"] for test in report.dict()["tests"] if test["status"] == "FAIL"]
    return "drift" in failed, any(name != "drift" for name in failed)


def study_reference(number: int, plan: Plan) -> list[Record]:
    """Do one reference's part of the plan; a record for each undrifted window and each repetition of a drift."""
    reference = make_reference(load_wines("twin", make_seed(plan.seed, number), Path(), ""))
    records: list[Record] = []
    for size in SIZES:
        seed = make_seed(plan.seed, number, size)
        count = math.ceil(plan.windows / plan.references) + OF - 1
        for traffic in (REPEATED, UNDRIFTED):
            undrifted = watch_undrifted(reference, size, count, seed, traffic)
            alarms = [None] * (OF - 1) + [alarm.raised for alarm in look_back(undrifted)]
            wines = sample_windows(traffic, size, count, seed)
            for turn, (window, alarm, table) in enumerate(zip(undrifted, alarms, wines, strict=True)):
                asked = turn < math.ceil(plan.reports / plan.references)
                record = {"traffic": traffic.name, "size": size, "windows": 1, "alarm": alarm}
                records.append(record | judge_window(reference, window, table, asked))
        for (place, traffic), turn in product(enumerate(DRIFTED), range(plan.repetitions)):
            if turn % plan.references != number:
                continue
            start = turn // plan.references * LEAD % (len(undrifted) - LEAD + 1)
            lead, itself = undrifted[start : start + LEAD], _choose_feature(traffic, turn)
            found = await_alarm(reference, itself, size, lead, make_seed(seed, place, turn))
            record = {"traffic": traffic.name, "size": size, "windows": LEAD + len(found.windows), "delay": found.delay}
            asked = turn < math.ceil(plan.reports / 4)
            records.append(record | judge_window(reference, found.windows[0], found.first, asked))
    return records


def judge_window(reference: Reference, window: Checked, wines: pd.DataFrame, asked: bool) -> Record:
    """Whether a check of a window drifted and, where Evidently is asked, what it says of a column and the table."""
    column, table = ask_evidently(reference, wines) if asked else (None, None)
    return {"drifted": any(check.drifted for check in window[1]), "column": column, "table": table}


def make_seed(*numbers: int) -> int:
    """Make a seed of several numbers; those of other numbers have nothing to do with it."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def run_plan(plan: Plan, processes: int) -> pd.DataFrame:
    """Do the plan on several cores, and say how far it is."""
    records: list[Record] = []
    start = time.monotonic()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(study_reference, number, plan) for number in range(plan.references)]
        for done, future in enumerate(as_completed(running), 1):
            records += future.result()
            false = sum(bool(record.get("alarm")) for record in records)
            seconds = time.monotonic() - start
            print(f"  {done} of {plan.references} references, {seconds:.0f} s; false alarms: {false}", flush=True)
    return pd.DataFrame(records)


def list_rows(records: pd.DataFrame) -> list[dict[str, str]]:
    """The figures as rows of one table."""
    rows = []
    for traffic, size in product((UNDRIFTED, REPEATED, *DRIFTED), SIZES):
        found = records[(records["traffic"] == traffic.name) & (records["size"] == size)]
        rows.append(
            {
                "traffic": traffic.name,
                "wines a window": f"{size:,}",
                "windows": f"{found['windows'].sum():,}",
                "alarm": _describe_alarm(found["alarm"].dropna(), found["delay"].dropna()),
                "one window by itself": f"{100 * found['drifted'].mean():.1f} %",
                "Evidently: a column": f"{found['column'].sum()} of {found['column'].count()}",
                "Evidently: the table": f"{found['table'].sum()} of {found['table'].count()}",
            }
        )
    return rows


def _choose_feature(traffic: Traffic, repetition: int) -> Traffic:
    """The same traffic; a shift is of another measurement each time."""
    if traffic.drift.kind != "shift":
        return traffic
    return replace(traffic, drift=replace(traffic.drift, feature=MEASUREMENTS[repetition % len(MEASUREMENTS)]))


def _describe_alarm(alarms: pd.Series, delays: pd.Series) -> str:
    """How often an alarm was false, or which window of the drift brought it."""
    if len(alarms):
        return f"false {1000 * alarms.mean():.1f} times in 1,000 (goal <= {GOAL})"
    shown = [f"{delay:.0f}" if math.isfinite(delay) else f"> {MOST}" for delay in sorted(delays)]
    half, most = (shown[math.ceil(share * len(shown)) - 1] for share in (0.5, 0.9))
    missed = 100 * float(np.isinf(delays).mean())
    return f"window {half}, 90 % by {most}" + (f", {missed:.0f} % not by {MOST}" if missed else "")
