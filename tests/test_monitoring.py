"""Windows of the log, checks, quality and the alarm, on real logs: drift, gaps, wrong clocks, late labels."""

import gc
import shutil
import sqlite3
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from commands import BadInputError
from deployment.prediction_log import reader, windows
from deployment.prediction_log.tables import PREDICTIONS
from deployment.prediction_log.windows import Span, cut_by_count, find_windows
from experiment_tracking.registry.promotion import list_records
from monitoring.drift import INPUTS, QUALITY, REFUSALS, Check, compare, decide
from monitoring.report.record import list_monitoring_runs, record_watch
from monitoring.simulate.drifts import Drift
from monitoring.simulate.traffic import sample_drifted
from monitoring.watch import RECENT, Watch, raise_alarm, read_reference, watch_log
from settings import Settings
from tests.answers import log_grades, log_refusals, log_rows, log_wines, make_champion
from tests.messages import list_missing
from wine_data.schema import TARGET
from wine_data.snapshots.labelled import divide_labelled, join_labelled
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.bundle import METADATA_FILE, Bundle, find_current, load_current
from wine_quality_training.bundle.metadata import dump_metadata
from wine_quality_training.bundle.profile import LABELLED, describe_column, profile_wines

pytestmark = pytest.mark.fast

NOON = 1_700_000_000.0
ROWS = 500  # wines in a window here


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, twin: WineData) -> Path:
    folder = tmp_path_factory.mktemp("champion") / "models"
    make_champion(folder, twin)
    return folder


@pytest.fixture
def champion(models: Path) -> Bundle:
    return load_current(models)


@pytest.fixture
def settings(models: Path, tmp_path: Path) -> Settings:
    log_url = f"sqlite:///{tmp_path / 'predictions.db'}"
    return Settings(serving_models=models, log_url=log_url, window_rows=ROWS, window_hours=0)


def look(settings: Settings, now: float = NOON + 1e6) -> Watch:
    return watch_log(settings, now=now)


def name_findings(watch: Watch) -> set[tuple[str, str]]:
    return {(finding.check.kind, finding.check.name) for finding in watch.alarm.findings}


@pytest.mark.parametrize(
    ("times", "spans"),
    [
        pytest.param([1, 2, 3, 4, 5, 6, 7], [Span(2, 5), Span(5, np.nextafter(7, 8))], id="the oldest rest makes none"),
        pytest.param([1, 2, 3, 4, 4, 4, 5, 6], [Span(1, 4), Span(4, np.nextafter(6, 7))], id="one moment, one window"),
        pytest.param([1, 2], [], id="too few"),
    ],
)
def test_windows_by_count_are_cut_back_from_the_newest(times: list[float], spans: list[Span]) -> None:
    assert cut_by_count(times, rows=3) == spans


def test_a_gap_makes_a_long_window_by_count_and_none_by_time(settings: Settings, champion: Bundle) -> None:
    log_wines(settings.log_url, champion, sample_twin(ROWS, 1), NOON)
    log_wines(settings.log_url, champion, sample_twin(ROWS // 2, 2), NOON + 86_400)
    (window,) = find_windows(settings.log_url, ROWS, 0, NOON + 2e5, most=5)
    assert window.until - window.since > 80_000
    hours = [Span(start, start + 3600) for start in (NOON - 800, NOON - 800 + 86_400)]
    assert find_windows(settings.log_url, ROWS, 1, NOON + 2e5, most=500) == hours
    assert find_windows(settings.log_url, ROWS, 1, NOON + 86_400, most=500) == hours[:1]  # the other is not over


def test_an_hour_of_many_requests_hides_no_hour_before_it_and_keeps_its_shares(
    settings: Settings, champion: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = NOON - 800  # an hour begins
    log_wines(settings.log_url, champion, sample_twin(ROWS, 1), start)
    log_refusals(settings.log_url, ROWS, "pH", start)
    fields = [column.name for column in PREDICTIONS.columns]
    later = ", ".join(
        {"time": "time + 3600", "request_id": "request_id || ' ' || i"}.get(name, name) for name in fields
    )
    with sqlite3.connect(settings.log_url.removeprefix("sqlite:///")) as log:
        log.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= 400) "
            f"INSERT INTO predictions ({', '.join(fields)}) SELECT {later} FROM predictions, n"
        )
    assert find_windows(settings.log_url, ROWS, 1, start + 4500, most=5) == [Span(start, start + 3600)]
    for module in (reader, windows):
        monkeypatch.setattr(module, "MOST_ROWS", 200)
    window = windows.read_window(settings.log_url, Span(start, start + 3600))
    assert (window.span.since, len(window.answers), window.asked) == (start + 300, 200, 400)


def test_rows_of_a_clock_that_was_ahead_belong_to_no_window_yet(settings: Settings, champion: Bundle) -> None:
    log_wines(settings.log_url, champion, sample_twin(ROWS, 1), NOON)
    log_wines(settings.log_url, champion, sample_twin(ROWS, 2), NOON + 1e7)
    (window,) = look(settings, now=NOON + 1e6).windows
    assert window.span.until < NOON + 1e6
    assert len(look(settings, now=NOON + 2e7).windows) == 2


def test_rows_that_cannot_be_read_are_left_out_and_counted(settings: Settings, champion: Bundle) -> None:
    ids = log_wines(settings.log_url, champion, sample_twin(ROWS, 1), NOON)
    damage = ("probabilities = 'nothing'", "alcohol = 'strong'", "prediction = 'good'", "density = NULL")
    with sqlite3.connect(settings.log_url.removeprefix("sqlite:///")) as log:
        for change, request_id in zip(damage, ids, strict=False):
            log.execute(f"UPDATE predictions SET {change} WHERE request_id = ?", (request_id,))
    (window,) = look(settings).windows
    assert (window.corrupt, window.answered) == (4, ROWS - 4)


def test_an_empty_log_has_no_window_and_no_alarm(settings: Settings) -> None:
    log_rows(settings.log_url, PREDICTIONS, pd.DataFrame({"time": []}))
    watch = look(settings)
    assert watch.windows == ()
    assert not watch.alarm.raised


def test_a_bundle_without_profiles_has_to_be_made_anew(models: Path, tmp_path: Path) -> None:
    old = tmp_path / "models"
    shutil.copytree(models, old)
    metadata = replace(load_current(old).metadata, profiles=())
    (find_current(old) / METADATA_FILE).write_text(dump_metadata(metadata))
    with pytest.raises(BadInputError, match="make pipeline"):
        read_reference(old)


def test_ks_at_the_points_of_a_profile_is_that_of_the_wines_themselves() -> None:
    reference, shifted = (np.random.default_rng(seed).normal(0.5 * seed, 1, 4000) for seed in (0, 1))
    ks, p = compare(describe_column(reference), len(reference), shifted)["KS"]
    assert ks == pytest.approx(ks_2samp(reference, shifted).statistic, abs=0.01)
    assert p < 1e-6
    ks, p = compare(describe_column(reference), len(reference), reference[::4])["KS"]
    assert ks < 0.03
    assert p > 0.2


@pytest.mark.parametrize(
    ("p", "strength", "checks", "drifted"),
    [
        pytest.param(0.01, 2, 1, True, id="one check"),
        pytest.param(0.01, 2, 20, False, id="many checks have to be surer"),
        pytest.param(0.0, 0.9, 1, False, id="certain, but too small to matter"),
    ],
)
def test_drift_is_both_certain_and_large(p: float, strength: float, checks: int, drifted: bool) -> None:
    decided = list(decide([Check(INPUTS, "alcohol", {"KS": 0.2}, p, strength)] * checks))
    assert [check.drifted for check in decided] == [drifted] * checks


def make_history(windows: str) -> list[tuple[Span, list[Check]]]:
    """One check in windows that drifted, d, or did not, -."""
    checks = [Check(INPUTS, "pH", {"KS": 0.3}, 0.0, 5.0, drifted=window == "d") for window in windows]
    return [(Span(number, number + 1), [check]) for number, check in enumerate(checks)]


@pytest.mark.parametrize(
    ("windows", "raised"), [("d", False), ("dd", True), ("d-d", True), ("dd-", False), ("d--d", False)]
)
def test_an_alarm_needs_two_of_the_last_three_windows_and_the_latest(windows: str, raised: bool) -> None:
    assert raise_alarm(make_history(windows)).raised is raised


def test_windows_without_labels_do_not_count_for_a_check_that_needs_them() -> None:
    history = make_history("dd")
    unlabelled: list[tuple[Span, list[Check]]] = [(Span(9, 10), [])]
    assert raise_alarm([*history, *unlabelled]).since == 0
    assert not raise_alarm([*history, *unlabelled * RECENT]).raised  # by then nobody grades any more


def test_a_unit_mistake_raises_an_alarm_of_refusals_until_it_is_mended(settings: Settings, champion: Bundle) -> None:
    log_wines(settings.log_url, champion, sample_twin(2 * ROWS, 5), NOON)
    log_refusals(settings.log_url, ROWS, "17.chlorides", NOON + 0.5)  # as a batch names the field
    watch = look(settings)
    assert [window.refusals for window in watch.windows] == [{"chlorides": ROWS // 2}] * 2 + [{}]
    assert not watch.alarm.raised  # the latest window has none
    log_refusals(settings.log_url, ROWS, "chlorides", NOON + ROWS + 0.5)
    watch = look(settings)
    assert name_findings(watch) == {(REFUSALS, "chlorides refused")}
    assert watch.windows[-1].asked == ROWS
    assert watch.windows[-1].reasons["chlorides"].startswith("must be at most 3 (")
    log_wines(settings.log_url, champion, sample_twin(ROWS, 6), NOON + 5000)
    assert not look(settings).alarm.raised


def test_a_unit_mistake_sent_in_batches_counts_every_wine(settings: Settings, champion: Bundle) -> None:
    log_wines(settings.log_url, champion, sample_twin(ROWS, 5), NOON)
    for hour in (1, 2):
        log_refusals(settings.log_url, 1, "17.chlorides", NOON + 3600 * hour, wines=ROWS)
    watch = look(settings)
    assert [window.asked for window in watch.windows] == [ROWS] * 3
    assert watch.windows[-1].refusals == {"chlorides": ROWS}
    assert name_findings(watch) == {(REFUSALS, "chlorides refused")}


def test_harsher_tasters_raise_an_alarm_once_their_late_grades_come(settings: Settings, champion: Bundle) -> None:
    log_wines(settings.log_url, champion, sample_twin(ROWS, 7), NOON, labels=0.5)
    harsh = sample_drifted(Drift("grades", size=1), 2 * ROWS, 8)
    ids = log_wines(settings.log_url, champion, harsh, NOON + 5000)
    before = look(settings)
    assert not before.alarm.raised
    assert before.windows[-1].quality is None
    log_grades(settings.log_url, ids[::2], harsh[TARGET].to_numpy()[::2])
    after = look(settings)
    assert {kind for kind, _ in name_findings(after)} == {QUALITY}
    normal, latest = after.windows[0].quality, after.windows[-1]
    assert latest.graded == ROWS // 2
    assert normal is not None
    assert latest.quality is not None
    assert latest.estimate is not None
    assert latest.quality.metrics["coverage_90"] < 0.85 < normal.metrics["coverage_90"]
    assert "coverage" in {check.name for check in latest.drifted}
    assert latest.quality.metrics["accuracy"] < normal.metrics["accuracy"] - 0.1
    assert latest.quality.intervals["accuracy"][1] < latest.estimate  # which cannot know


@pytest.mark.parametrize(
    ("model", "shown"),
    [({"version": "7"}, "7"), ({"run_id": "before the reset"}, "1 of another registry")],
    ids=["another version", "version 1 of another registry"],
)
def test_answers_of_another_model_count_for_inputs_only(
    settings: Settings, champion: Bundle, model: dict[str, str], shown: str
) -> None:
    other = replace(champion, metadata=replace(champion.metadata, **model))  # type: ignore[arg-type]
    log_wines(settings.log_url, other, sample_twin(ROWS, 5), NOON, labels=1.0)
    (window,) = look(settings).windows
    assert {check.kind for check in window.checks} == {INPUTS, REFUSALS}
    assert window.quality is None
    assert window.versions == {shown: ROWS}
    assert window.estimate is None


@pytest.mark.alone
def test_a_window_of_5000_answers_is_checked_in_two_seconds(settings: Settings, champion: Bundle) -> None:
    log_wines(settings.log_url, champion, sample_twin(5000, 5), NOON, labels=0.2)
    wide = settings.model_copy(update={"window_rows": 5000})
    look(wide)  # what is imported and cached once is no part of it
    start = time.perf_counter()
    assert len(look(wide).windows) == 1
    assert time.perf_counter() - start < 2


def test_a_long_log_takes_no_more_memory_than_a_short_one(settings: Settings, champion: Bundle) -> None:
    peaks = []
    for start, count in ((0, 4 * ROWS), (10_000, 20_000)):
        log_wines(settings.log_url, champion, sample_twin(count, 5), NOON + start)
        watch_log(settings, 3, NOON + 1e6)  # what is imported and cached once is no part of it
        gc.collect()
        tracemalloc.start()
        assert len(watch_log(settings, 3, NOON + 1e6).windows) == 3
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_model_that_learned_from_labelled_answers_knows_both_kinds_of_traffic(
    settings: Settings, champion: Bundle, twin: WineData, tmp_path: Path
) -> None:
    vintage = Drift("shift", "alcohol", 1.5)
    retrained = tmp_path / "models"
    make_champion(retrained, join_labelled(twin, divide_labelled(sample_drifted(vintage, 1000, 3))))
    assert [part.part for part in read_reference(retrained).profiles][1] == LABELLED
    log_wines(settings.log_url, champion, sample_drifted(vintage, 3 * ROWS, 9), NOON)
    assert look(settings).alarm.raised
    knowing = look(settings.model_copy(update={"serving_models": retrained}))
    assert not [finding for finding in knowing.alarm.findings if finding.check.kind == INPUTS]
    assert all(window.part.endswith(LABELLED) for window in knowing.windows)
    wines = pd.concat([sample_drifted(vintage, ROWS, 10), sample_twin(2 * ROWS, 11)]).sample(frac=1, random_state=0)
    log_wines(settings.log_url, champion, wines, NOON + 5000)
    mixed = look(settings.model_copy(update={"serving_models": retrained})).windows[-3:]
    assert [check.sentence() for window in mixed for check in window.drifted if check.kind == INPUTS] == []
    assert all("%" in window.part for window in mixed)


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


@pytest.mark.usefixtures("store")
def test_a_shift_raises_an_alarm_of_its_feature_which_is_recorded(settings: Settings, champion: Bundle) -> None:
    log_wines(settings.log_url, champion, sample_drifted(Drift("shift", "pH", 1), 3 * ROWS, 6), NOON, labels=0.3)
    watch = look(settings)
    inputs = {name for kind, name in name_findings(watch) if kind == INPUTS}
    assert {"pH"} <= inputs <= {"pH", "pH outside"}
    record_watch(watch, "no retraining")
    (seen,) = list_monitoring_runs()
    assert list_missing(seen.reason, "pH") == []
    assert (seen.action, seen.version, seen.until) == ("no retraining", "1", watch.windows[-1].span.until)
    assert seen.saw(look(settings))
    log_wines(settings.log_url, champion, sample_twin(ROWS, 7), NOON + 5000)
    assert not seen.saw(look(settings))
    assert list_records() == []
