"""Windows of the log, checks, quality and the alarm, on real logs: drift, gaps, wrong clocks, late labels."""

import json
import shutil
import sqlite3
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp
from sklearn.ensemble import RandomForestClassifier

from commands import BadInputError, NotThereError
from deployment.prediction_log.tables import FEEDBACK, PREDICTIONS, REFUSALS, insert_rows, make_engine, prepare_tables
from deployment.prediction_log.windows import Span, cut_by_count, cut_by_time, find_windows, read_window
from experiment_tracking.registry.promotion import list_records
from monitoring.alarm import RECENT, raise_alarm
from monitoring.drift import INPUTS, QUALITY, Check, compare, decide
from monitoring.drift import REFUSALS as REFUSED
from monitoring.report.record import list_monitoring_runs, record_watch
from monitoring.simulate.drifts import Drift
from monitoring.simulate.traffic import sample_drifted
from monitoring.watch import Watch, read_reference, watch_log
from settings import Settings
from tests.conftest import make_bundle
from tests.told import list_untold, naming
from wine_data.schema import ANSWERED, FEATURES, TARGET, feature_frame
from wine_data.snapshots.labelled import divide_labelled, join_labelled
from wine_data.sources.load import WineData
from wine_data.split import Split, is_holdout, split_wines
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.files import METADATA_FILE, find_current, load_bundle, select_bundle
from wine_quality_training.bundle.metadata import ModelMetadata, dump_metadata
from wine_quality_training.bundle.profile import LABELLED, describe_column, profile_wines
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import impute_before

pytestmark = pytest.mark.fast

NOON = 1_700_000_000.0
ROWS = 500  # wines in a window here


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, twin: WineData, twin_split: Split) -> Path:
    """A folder of bundles with one champion, a small forest whose predictions in cross-validation are known."""
    folder = tmp_path_factory.mktemp("champion") / "models"
    forest = impute_before(RandomForestClassifier(30, random_state=1, n_jobs=1))
    evaluation = evaluate_leak_free("RandomForestClassifier", forest, twin_split)
    select_bundle(make_bundle(folder, evaluation, twin, twin_split.train, compiles=False))
    return folder


@pytest.fixture
def settings(models: Path, tmp_path: Path) -> Settings:
    return Settings(
        serving_models=models,
        log_url=f"sqlite:///{tmp_path / 'predictions.db'}",
        window_rows=ROWS,
        window_hours=0,
        monitoring_reports=tmp_path / "reports",
    )


def log_wines(
    url: str, models: Path, wines: pd.DataFrame, since: float, labels: float = 0.0, version: str = "1"
) -> list[str]:
    """Write what the champion says of wines into a log, one answer a second; return the request ids."""
    pipeline = load_bundle(find_current(models)).pipeline
    probabilities = pipeline.predict_proba(feature_frame(wines))
    times = since + np.arange(len(wines))
    ids = [f"{at:.0f}" for at in times]
    grades = pipeline.classes_[probabilities.argmax(axis=1)]
    likely = [
        json.dumps({str(g): float(f"{p:.7g}") for g, p in zip(pipeline.classes_, row, strict=True)})
        for row in probabilities
    ]
    rows = zip(times.tolist(), ids, feature_frame(wines).to_numpy().tolist(), grades.tolist(), likely, strict=True)
    answers = [(at, name, version, "run", *wine, grade, said, 5.5, 1.0) for at, name, wine, grade, said in rows]
    write_rows(url, PREDICTIONS, answers)
    graded = np.random.default_rng(0).random(len(wines)) < labels
    tell_grades(url, [name for name, told in zip(ids, graded, strict=True) if told], wines[TARGET][graded].tolist())
    return ids


def tell_grades(url: str, ids: Sequence[str], grades: Sequence[int]) -> None:
    write_rows(url, FEEDBACK, [(name, NOON, int(grade)) for name, grade in zip(ids, grades, strict=True)])


def log_refusals(url: str, count: int, field: str, since: float) -> None:
    rows = [(since + n, f"{since + n}", "/predict", 422, field, "must be at most 3") for n in range(count)]
    write_rows(url, REFUSALS, rows)


def write_rows(url: str, table: object, rows: Sequence[tuple[object, ...]]) -> None:
    engine = make_engine(url)
    prepare_tables(engine)
    with engine.begin() as connection:
        insert_rows(connection, table, rows)  # type: ignore[arg-type]
    engine.dispose()


def look(settings: Settings, now: float = NOON + 1e6) -> Watch:
    return watch_log(settings, now=now)


def name_findings(watch: Watch) -> set[tuple[str, str]]:
    return {(finding.check.kind, finding.check.name) for finding in watch.alarm.findings}


# Windows


def test_windows_by_count_are_cut_back_from_the_newest_and_the_oldest_rest_makes_none() -> None:
    assert cut_by_count([1, 2, 3, 4, 5, 6, 7], rows=3) == [Span(2, 5), Span(5, np.nextafter(7, 8))]
    assert cut_by_count([1, 2], rows=3) == []


def test_requests_of_one_moment_stay_in_one_window() -> None:
    first, second = cut_by_count([1, 2, 3, 4, 4, 4, 5, 6], rows=3)
    assert (first.since, first.until, second.since) == (1, 4, 4)


def test_windows_by_time_leave_out_hours_in_which_nobody_asked_and_the_hour_that_runs() -> None:
    times = [3600.0, 3700.0, 5 * 3600.0, 9 * 3600.0 + 5]
    assert cut_by_time(times, 1, now=9 * 3600 + 60) == [Span(3600, 7200), Span(18000, 21600)]


def test_a_gap_makes_a_long_window_by_count_and_none_by_time(settings: Settings, models: Path) -> None:
    log_wines(settings.log_url, models, sample_twin(ROWS, 1), NOON)
    log_wines(settings.log_url, models, sample_twin(ROWS // 2, 2), NOON + 86_400)
    (window,) = find_windows(settings.log_url, ROWS, 0, NOON + 2e5, most=5)
    assert window.until - window.since > 80_000
    by_hour = find_windows(settings.log_url, ROWS, 1, NOON + 2e5, most=500)
    assert [span.until - span.since for span in by_hour] == [3600.0] * len(by_hour)
    assert len(by_hour) == 2


def test_rows_of_a_clock_that_was_ahead_belong_to_no_window_yet(settings: Settings, models: Path) -> None:
    log_wines(settings.log_url, models, sample_twin(ROWS, 1), NOON)
    log_wines(settings.log_url, models, sample_twin(ROWS, 2), NOON + 1e7)
    (window,) = look(settings, now=NOON + 1e6).windows
    assert window.span.until < NOON + 1e6
    assert len(look(settings, now=NOON + 2e7).windows) == 2


def test_rows_that_cannot_be_read_are_left_out_and_counted(settings: Settings, models: Path) -> None:
    ids = log_wines(settings.log_url, models, sample_twin(ROWS, 1), NOON)
    with sqlite3.connect(settings.log_url.removeprefix("sqlite:///")) as log:
        log.execute("UPDATE predictions SET probabilities = 'nothing' WHERE request_id = ?", ids[:1])
        log.execute("UPDATE predictions SET alcohol = 'strong' WHERE request_id = ?", ids[1:2])
        log.execute("UPDATE predictions SET prediction = 'good' WHERE request_id = ?", ids[2:3])
        log.execute("UPDATE predictions SET density = NULL WHERE request_id = ?", ids[3:4])
    (window,) = look(settings).windows
    assert (window.corrupt, window.answered) == (4, ROWS - 4)


def test_an_empty_log_has_no_window_and_no_alarm(settings: Settings) -> None:
    write_rows(settings.log_url, PREDICTIONS, [])
    watch = look(settings)
    assert watch.windows == ()
    assert not watch.alarm.raised


def test_a_log_that_is_not_there_or_of_another_version_is_told(settings: Settings) -> None:
    with pytest.raises(NotThereError, match=r"predictions\.db\b"):
        look(settings)
    write_rows(settings.log_url, PREDICTIONS, [])
    with sqlite3.connect(settings.log_url.removeprefix("sqlite:///")) as log:
        log.execute("UPDATE prediction_log_schema SET version = 99")
    with pytest.raises(BadInputError, match=naming("version 99", "WINE_LOG_URL")):
        look(settings)


def test_a_bundle_of_before_there_were_profiles_is_told(models: Path, tmp_path: Path) -> None:
    old = tmp_path / "models"
    shutil.copytree(models, old)
    path = find_current(old) / METADATA_FILE
    path.write_text(dump_metadata(replace(load_bundle(path.parent).metadata, profiles=())))
    with pytest.raises(BadInputError, match="make pipeline"):
        read_reference(old)


# Checks


def test_ks_at_the_points_of_a_profile_is_that_of_the_wines_themselves() -> None:
    reference, shifted = (np.random.default_rng(seed).normal(0.5 * seed, 1, 4000) for seed in (0, 1))
    ks, p = compare(describe_column(reference), len(reference), shifted)["KS"]
    exact = ks_2samp(reference, shifted)
    assert ks == pytest.approx(exact.statistic, abs=0.01)
    assert p < 1e-6
    ks, p = compare(describe_column(reference), len(reference), reference[::4])["KS"]
    assert ks < 0.03
    assert p > 0.2


def test_many_checks_have_to_be_surer_than_one() -> None:
    one = Check(INPUTS, "alcohol", {"KS": 0.2}, p=0.01, strength=2)
    assert next(decide([one])).drifted
    assert not any(check.drifted for check in decide([one] * 20))


def test_a_certain_difference_that_is_too_small_to_matter_is_no_drift() -> None:
    assert not next(decide([Check(INPUTS, "alcohol", {"KS": 0.05}, p=0.0, strength=0.9)])).drifted


def make_history(*drifted: bool) -> list[tuple[Span, list[Check]]]:
    return [
        (Span(number, number + 1), [Check(INPUTS, "pH", {"KS": 0.3}, 0.0, 5.0, drifted=one)])
        for number, one in enumerate(drifted)
    ]


@pytest.mark.parametrize(
    ("drifted", "raised"),
    [((True,), False), ((True, True), True), ((True, False, True), True), ((True, True, False), False),
     ((True, False, False, True), False)],
)  # fmt: skip
def test_an_alarm_needs_two_of_the_last_three_windows_and_the_latest(drifted: tuple[bool, ...], raised: bool) -> None:
    assert raise_alarm(make_history(*drifted)).raised is raised


def test_windows_without_labels_do_not_count_for_a_check_that_needs_them() -> None:
    history = make_history(True, True)
    unlabelled: list[tuple[Span, list[Check]]] = [(Span(9, 10), [])]
    assert raise_alarm([*history, *unlabelled]).since == 0
    assert not raise_alarm([*history, *unlabelled * RECENT]).raised  # by then nobody grades any more


def test_normal_traffic_raises_no_alarm_and_a_shift_one_of_its_feature(settings: Settings, models: Path) -> None:
    log_wines(settings.log_url, models, sample_twin(3 * ROWS, 5), NOON)
    watch = look(settings)
    assert len(watch.windows) == 3
    assert not watch.alarm.raised
    log_wines(settings.log_url, models, sample_drifted(Drift("shift", "pH", 1), 2 * ROWS, 6), NOON + 5000)
    assert (INPUTS, "pH") in name_findings(look(settings))
    assert not (name_findings(look(settings)) - {(INPUTS, "pH"), (INPUTS, "pH outside")})


def test_a_unit_mistake_that_the_api_refuses_raises_an_alarm_until_it_is_mended(
    settings: Settings, models: Path
) -> None:
    log_wines(settings.log_url, models, sample_twin(2 * ROWS, 5), NOON)
    log_refusals(settings.log_url, ROWS, "17.chlorides", NOON + 0.5)  # as a batch names the field
    watch = look(settings)
    assert [window.refusals for window in watch.windows] == [{"chlorides": ROWS // 2}] * 2 + [{}]
    assert not watch.alarm.raised  # the latest window has none
    log_refusals(settings.log_url, ROWS, "chlorides", NOON + ROWS + 0.5)
    watch = look(settings)
    assert name_findings(watch) == {(REFUSED, "chlorides refused")}
    assert watch.windows[-1].asked == ROWS
    assert watch.windows[-1].reasons["chlorides"].startswith("must be at most 3 (")
    log_wines(settings.log_url, models, sample_twin(ROWS, 6), NOON + 5000)
    assert not look(settings).alarm.raised


def test_tasters_who_judge_otherwise_are_seen_once_their_late_grades_come(settings: Settings, models: Path) -> None:
    log_wines(settings.log_url, models, sample_twin(ROWS, 7), NOON, labels=0.5)
    harsh = sample_drifted(Drift("grades", size=1), 2 * ROWS, 8)
    ids = log_wines(settings.log_url, models, harsh, NOON + 5000)
    before = look(settings)
    assert not before.alarm.raised
    assert before.windows[-1].quality is None
    assert before.windows[-1].estimate is not None
    tell_grades(settings.log_url, ids[::2], harsh[TARGET].iloc[::2].tolist())
    after = look(settings)
    assert after.alarm.kinds() == (QUALITY,)
    quality, normal = after.windows[-1].quality, after.windows[0].quality
    assert quality is not None
    assert normal is not None
    assert quality.metrics["accuracy"] < normal.metrics["accuracy"] - 0.1
    assert quality.intervals["accuracy"][1] < after.windows[-1].estimate  # type: ignore[operator]  # which cannot know


def test_answers_of_another_version_count_for_inputs_only(settings: Settings, models: Path) -> None:
    log_wines(settings.log_url, models, sample_twin(ROWS, 5), NOON, labels=1.0, version="7")
    (window,) = look(settings).windows
    assert {check.kind for check in window.checks} == {INPUTS, REFUSED}
    assert window.quality is None
    assert window.versions == {"7": ROWS}


@pytest.mark.alone
def test_a_window_of_5000_answers_is_checked_in_two_seconds(settings: Settings, models: Path) -> None:
    log_wines(settings.log_url, models, sample_twin(5000, 5), NOON, labels=0.2)
    wide = settings.model_copy(update={"window_rows": 5000})
    look(wide)  # what is imported and cached once is no part of it
    start = time.perf_counter()
    assert len(look(wide).windows) == 1
    assert time.perf_counter() - start < 2


def test_a_long_log_takes_no_more_memory_than_a_short_one(settings: Settings, models: Path) -> None:
    peaks = []
    for start, count in ((0, 4 * ROWS), (10_000, 20_000)):
        log_wines(settings.log_url, models, sample_twin(count, 5), NOON + start)
        tracemalloc.start()
        assert len(watch_log(settings, 3, NOON + 1e6).windows) == 3
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# What a model may learn from


def test_labelled_answers_are_divided_by_content_and_join_the_training_side_only(twin: WineData) -> None:
    answers = sample_drifted(Drift("shift", "alcohol", 1.5), 600, 3)
    labelled = divide_labelled(answers.assign(quality=answers[TARGET].where(answers.index % 2 == 0)))
    assert len(labelled.train) + len(labelled.validation) == 300
    assert is_holdout(labelled.validation).all()
    assert not is_holdout(labelled.train).any()
    known = split_wines(twin.train, twin.validation, 2, 0)
    joined = join_labelled(twin, labelled)
    split = split_wines(joined.train, joined.validation, 2, 0)
    pd.testing.assert_frame_equal(split.holdout[list(FEATURES)], known.holdout[list(FEATURES)])
    assert int(split.train[ANSWERED].eq(True).sum()) == len(labelled.train)
    assert joined.labelled == labelled.fingerprint
    assert joined.fingerprint != twin.fingerprint


def test_answers_without_a_grade_are_nothing_to_learn_from() -> None:
    with pytest.raises(BadInputError, match="POST /feedback"):
        divide_labelled(sample_twin(10, 1).assign(quality=np.nan))


def test_a_model_that_learned_from_labelled_answers_knows_both_kinds_of_traffic(
    settings: Settings, models: Path, twin: WineData, tmp_path: Path
) -> None:
    vintage = Drift("shift", "alcohol", 1.5)
    joined = join_labelled(twin, divide_labelled(sample_drifted(vintage, 1000, 3)))
    split = split_wines(joined.train, joined.validation, 2, 42)
    forest = impute_before(RandomForestClassifier(30, random_state=1, n_jobs=1))
    evaluation = evaluate_leak_free("RandomForestClassifier", forest, split)
    retrained = tmp_path / "models"
    select_bundle(make_bundle(retrained, evaluation, joined, split.train, compiles=False))
    metadata: ModelMetadata = read_reference(retrained)
    assert [part.part for part in metadata.profiles][1] == LABELLED
    log_wines(settings.log_url, models, sample_drifted(vintage, 3 * ROWS, 9), NOON)
    assert look(settings).alarm.raised
    knowing = settings.model_copy(update={"serving_models": retrained})
    assert not [f for f in look(knowing).alarm.findings if f.check.kind == INPUTS]
    assert {window.part for window in look(knowing).windows} == {LABELLED}


def test_a_profile_is_of_predictions_that_cross_validation_made(models: Path) -> None:
    (part,) = read_reference(models).profiles
    assert part.predictions is not None
    assert part.predictions.squared_error[0] > 0.4  # on wines that it was fitted on, a forest misses nothing
    sure, right = zip(*part.predictions.calibration, strict=True)
    assert list(sure) == sorted(sure)
    assert 0.3 < min(right) < max(right) < 0.9


def test_a_profile_leaves_holes_out(twin_split: Split) -> None:
    wines = twin_split.train.copy()
    wines.loc[wines.index % 3 == 0, "pH"] = np.nan
    (part,) = profile_wines(wines, None)
    assert part.features["pH"].shares[-1] == 1.0
    assert part.predictions is None


# What was seen is recorded


@pytest.mark.usefixtures("store")
def test_a_look_is_recorded_with_its_figures_and_seen_again(settings: Settings, models: Path) -> None:
    log_wines(settings.log_url, models, sample_drifted(Drift("shift", "pH", 1), 3 * ROWS, 6), NOON, labels=0.3)
    watch = look(settings)
    record_watch(watch, "told only")
    (seen,) = list_monitoring_runs()
    assert list_untold(seen.reason, "pH") == []
    assert (seen.action, seen.version, seen.until) == ("told only", "1", watch.windows[-1].span.until)
    assert seen.saw(look(settings))
    log_wines(settings.log_url, models, sample_twin(ROWS, 7), NOON + 5000)
    assert not seen.saw(look(settings))
    assert list_records() == []


def test_a_window_is_read_with_its_refusals_and_grades(settings: Settings, models: Path) -> None:
    wines = sample_twin(ROWS, 1)
    ids = log_wines(settings.log_url, models, wines, NOON)
    tell_grades(settings.log_url, ids[:7], wines[TARGET].head(7).tolist())
    log_refusals(settings.log_url, 3, "alcohol", NOON + 0.5)
    window = read_window(settings.log_url, Span(NOON, NOON + ROWS))
    assert (window.asked, len(window.labelled), window.refused["field"].tolist()) == (ROWS + 3, 7, ["alcohol"] * 3)
    assert window.answers["confidence"].between(0.1, 1).all()
