"""Evidently's pages and figures: of windows made by hand, of files with holes, of a log; opened in a real browser."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, expect

from commands import BadInputError, NotThereError
from deployment.prediction_log.windows import Span, Window
from monitoring.drift import compare
from monitoring.report.files import report_batch, sample_reference, write_reports
from settings import ROOT
from tests.answers import log_wines
from tests.conftest import Served, needs_browser, run_here
from tests.messages import assert_failed, list_missing, naming
from tests.visits import visit_page
from wine_data.schema import FEATURES, MEASUREMENTS, TYPE, feature_frame
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.bundle import load_current
from wine_quality_training.bundle.profile import Profile, profile_wines

SPAN = Span(1_750_000_000.0, 1_750_003_600.0)
ROWS = 400


@pytest.fixture(scope="module")
def part() -> Profile:
    """What a model expects that predicts 5, 6 or 7 for every wine and is about as sure of one as of another."""
    wines = sample_twin(2_000, seed=1)
    confidence = np.random.default_rng(0).uniform(0.4, 0.9, len(wines))
    [part] = profile_wines(wines, pd.DataFrame({"prediction": wines["quality"].clip(5, 7), "confidence": confidence}))
    return part


def make_window(graded: int = 0, version: str = "1", **changed: Any) -> Window:
    """A window of wines as the model expects them, but for what is changed; the first so many are graded."""
    wines = sample_twin(ROWS, seed=2)
    answers = feature_frame(wines).assign(
        prediction=wines["quality"].clip(5, 7),
        confidence=np.random.default_rng(1).uniform(0.4, 0.9, ROWS),
        quality=wines["quality"].where(np.arange(ROWS) < graded).astype("float64"),
        version=version,
        run_id="",
    )
    return Window(SPAN, answers.assign(**changed), pd.DataFrame({"status": [], "request_id": []}))


def read_figures(path: Path) -> dict[str, Any]:
    """Read JSON as strictly as any other language does: NaN is none."""
    figures: dict[str, Any] = json.loads(path.read_text(), parse_constant=pytest.fail)
    return figures


def find_drifted(path: Path) -> list[str]:
    """The columns that a report says have drifted; it says so above them too, even of one."""
    share, *columns = read_figures(path)["tests"]
    drifted = [test["name"].removeprefix("Value Drift for column ") for test in columns if test["status"] == "FAIL"]
    assert share["name"].startswith("Share of Drifted Columns")
    assert share["status"] == ("FAIL" if drifted else "SUCCESS")
    return drifted


def find_values(path: Path, metric: str) -> dict[str, Any]:
    metrics = [found for found in read_figures(path)["metrics"] if found["metric_name"].startswith(metric)]
    return {found["config"].get("column", metric): found["value"] for found in metrics}


def list_names(paths: Sequence[Path]) -> list[str]:
    return sorted({path.stem for path in paths})


@pytest.fixture(scope="module")
def written(part: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of a window in which alcohol and the predicted grades have shifted, with 60 grades."""
    window = make_window(graded=60)
    shifted = window.answers.assign(alcohol=window.answers["alcohol"] + 1)
    shifted["prediction"] = shifted["prediction"].clip(6, 7)
    folder = tmp_path_factory.mktemp("reports") / "window"
    assert len(write_reports(replace(window, answers=shifted), part, folder)) == 6
    return folder


def test_the_reference_has_the_distributions_of_the_profile_and_no_wines(part: Profile) -> None:
    reference = sample_reference(part)
    assert list(reference) == [*FEATURES, "prediction", "confidence"]
    assert len(reference) == 1_000
    for name in FEATURES:
        assert compare(part.features[name], part.wines, reference[name].to_numpy())["KS"][0] <= 0.001
    assert set(reference["red_wine"]) == {0, 1}
    assert set(reference["prediction"]) == {5, 6, 7}
    assert reference["alcohol"].nunique() > 900
    assert abs(reference["alcohol"].corr(reference["density"])) < 0.1  # -0.7 in wines
    pd.testing.assert_frame_equal(reference, sample_reference(part))
    assert len(sample_reference(part, rows=50)) == 50


def test_shifted_columns_are_shown_as_drifted_and_others_are_not(written: Path) -> None:
    assert find_drifted(written / "inputs.json") == ["alcohol"]
    assert find_drifted(written / "predictions.json") == ["prediction"]


def test_the_figures_are_those_that_decide_an_alarm(part: Profile, written: Path) -> None:
    answers = make_window().answers
    answers["alcohol"] += 1
    expected = {name: compare(part.features[name], part.wines, answers[name].to_numpy())["KS"][0] for name in FEATURES}
    assert find_values(written / "inputs.json", "ValueDrift") == pytest.approx(expected)


def test_five_thousand_wines_that_have_not_drifted_are_not_said_to(part: Profile, tmp_path: Path) -> None:
    """Evidently's own test takes six columns for drifted: the rows of the reference are not rounded as wines are."""
    answers = feature_frame(sample_twin(5_000, seed=7)).assign(quality=np.nan)
    write_reports(Window(SPAN, answers, pd.DataFrame()), replace(part, predictions=None), tmp_path)
    assert find_drifted(tmp_path / "inputs.json") == []


@pytest.mark.full
def test_late_labels_make_the_quality_report_appear(part: Profile, written: Path, tmp_path: Path) -> None:
    assert list_names(write_reports(make_window(graded=29), part, tmp_path)) == ["inputs", "predictions"]
    assert list_names(write_reports(make_window(graded=30), part, tmp_path)) == ["inputs", "predictions", "quality"]
    graded = make_window(graded=30).answers.head(30)
    right = float((graded["quality"] == graded["prediction"]).mean())
    assert find_values(tmp_path / "quality.json", "Accuracy")["Accuracy"] == pytest.approx(right)
    assert list_missing(read_figures(written / "quality.json")["title"], "60") == []


@pytest.mark.full
def test_grades_of_two_kinds_alone_and_columns_of_one_value_make_reports_too(part: Profile, tmp_path: Path) -> None:
    quality = np.where(np.arange(ROWS) < 200, 5.0, 6.0)
    window = make_window(quality=quality, prediction=6, alcohol=10.0, red_wine=0.0, confidence=0.5)
    assert len(write_reports(window, part, tmp_path)) == 6
    assert find_values(tmp_path / "quality.json", "Accuracy")["Accuracy"] == 0.5
    write_reports(make_window(quality=5.0, prediction=6), part, tmp_path)
    assert find_values(tmp_path / "quality.json", "Accuracy")["Accuracy"] == 0
    assert find_values(tmp_path / "quality.json", "TPR")["TPR"] is None  # of no grade 6 none was found: 0 / 0


def test_predictions_and_quality_are_those_of_the_version_that_is_asked_for(part: Profile, tmp_path: Path) -> None:
    versions = np.where(np.arange(ROWS) < 300, "1", "2")
    window = make_window(graded=310, version="", prediction=np.where(versions == "1", 5, 7)).answers
    mixed = Window(SPAN, window.assign(version=versions), pd.DataFrame())
    write_reports(mixed, part, tmp_path, version="1")
    assert list_missing(read_figures(tmp_path / "quality.json")["title"], "300", "version 1") == []
    assert list_names(write_reports(mixed, part, tmp_path, version="2")) == ["inputs", "predictions"]
    assert list_missing(read_figures(tmp_path / "predictions.json")["title"], "100", "version 2") == []
    assert list_missing(read_figures(tmp_path / "inputs.json")["title"], "400") == []
    assert list_names(list(tmp_path.iterdir())) == ["inputs", "predictions"]


@pytest.mark.full
def test_evidently_sends_no_telemetry_even_where_the_environment_does_not_forbid_it() -> None:
    script = (
        "import monitoring.report.files; monitoring.report.files._import_evidently()\n"
        "from evidently.telemetry import event_logger; print(event_logger.is_enabled())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DO_NOT_TRACK"}
    assert subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, env=environment) == b"False\n"


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """A file of 300 wines with holes, words where numbers belong, infinity and a third colour."""
    cells = sample_twin(300, seed=3).drop(columns=["red_wine", "quality"]).astype(object)
    cells.loc[:9, "pH"] = None
    cells.loc[4:6, "alcohol"] = ["strong", "inf", None]
    cells.loc[7:8, TYPE] = ["rosé", " Red "]
    cells["sulphates"] += 0.3
    cells.to_csv(tmp_path / "may & june.csv", index=False)
    return tmp_path / "may & june.csv"


def test_holes_of_a_file_are_counted_by_column(part: Profile, batch: Path, tmp_path: Path) -> None:
    paths = report_batch(batch, part, tmp_path / "report")
    assert [path.name for path in paths] == ["missing.html", "missing.json", "inputs.html", "inputs.json"]
    counts = find_values(tmp_path / "report" / "missing.json", "MissingValueCount")
    expected = dict.fromkeys(FEATURES, 0) | {"pH": 10, "alcohol": 3, "red_wine": 1}
    assert {name: value["count"] for name, value in counts.items()} == expected
    assert counts["alcohol"]["share"] == pytest.approx(3 / 300)
    assert list(counts)[:3] == ["pH", "alcohol", "red_wine"]
    assert find_drifted(tmp_path / "report" / "inputs.json") == ["sulphates"]
    title = re.search(r"<title>(.*?)</title></head>", (tmp_path / "report" / "missing.html").read_text())
    assert title
    assert list_missing(title[1], "14", "3,600", "may &amp; june.csv") == []


def test_a_file_may_name_the_colour_by_number_and_leave_a_column_empty(part: Profile, tmp_path: Path) -> None:
    wines = sample_twin(20, seed=3)
    wines.assign(chlorides=None).drop(columns=TYPE).to_csv(tmp_path / "may.csv", index=False)
    report_batch(tmp_path / "may.csv", part, tmp_path)
    counts = find_values(tmp_path / "missing.json", "MissingValueCount")
    assert {name: value["count"] for name, value in counts.items() if value["count"]} == {"chlorides": 20}
    assert set(find_values(tmp_path / "inputs.json", "ValueDrift")) == {*FEATURES} - {"chlorides"}
    wines.assign(**dict.fromkeys((*MEASUREMENTS, TYPE), "?")).drop(columns="red_wine").to_csv(
        tmp_path / "may.csv", index=False
    )
    assert list_names(report_batch(tmp_path / "may.csv", part, tmp_path)) == ["missing"]


def test_a_file_that_is_not_there_or_lacks_a_column_is_refused(part: Profile, batch: Path, tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=naming("nowhere.csv")):
        report_batch(tmp_path / "nowhere.csv", part, tmp_path)
    pd.read_csv(batch).drop(columns="pH").to_csv(batch, index=False)
    with pytest.raises(BadInputError, match=naming("may & june.csv", "pH")):
        report_batch(batch, part, tmp_path)


@needs_browser
@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("inputs", ["alcohol", "Drift is detected for 8.333% of columns (1 out of 12)."]),
        ("predictions", ["confidence", "Drift is detected for 50.0% of columns (1 out of 2)."]),
        ("quality", ["Confusion Matrix", "Accuracy"]),
    ],
)
def test_a_page_opens_with_no_internet(browser: Browser, written: Path, name: str, texts: list[str]) -> None:
    address = (written / f"{name}.html").as_uri()
    with visit_page(browser, address) as visit:
        for text in (*texts, "monitoring/watch.py"):  # which decides an alarm, and no page does
            expect(visit.page.get_by_text(text).first).to_be_visible()
        for arrow in visit.page.locator("tbody tr button").all()[:1]:
            arrow.click()
            expect(visit.page.locator(".js-plotly-plot").first).to_be_visible()
        assert visit.asked_of_servers == [address]
        assert visit.complaints == []


def fill_log(served: Served, count: int, last: float = SPAN.since) -> None:
    """Log answers of the champion, a second apart."""
    log_wines(served.environment["WINE_LOG_URL"], load_current(served.models), sample_twin(count, 4), last + 1 - count)


def test_the_command_reports_the_newest_window_of_the_log(served: Served, tmp_path: Path) -> None:
    fill_log(served, 250)
    done = run_here("monitoring.reports", served.environment | {"WINE_WINDOW_ROWS": "200"})
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "reports" / "2025-06-15T15-06-40"  # when the window ended
    page = folder / "inputs.html"
    assert done.stdout.splitlines() == [str(page), str(folder / "inputs.json"), f"Next: open {page} in a browser"]
    assert list_missing(read_figures(folder / "inputs.json")["title"], "200") == []


def test_the_command_reports_a_file(served: Served, batch: Path, tmp_path: Path) -> None:
    done = run_here("monitoring.reports", served.environment, str(batch))
    folder = tmp_path / "reports" / "may & june"
    names = ("missing.html", "missing.json", "inputs.html", "inputs.json")
    assert done.stdout.splitlines()[:-1] == [str(folder / name) for name in names]
    assert str(folder / "missing.html") in done.stdout.splitlines()[-1]


def test_before_the_first_window_of_hours_the_command_says_to_wait(served: Served) -> None:
    fill_log(served, 3)
    done = run_here("monitoring.reports", served.environment | {"WINE_WINDOW_HOURS": "900000"})
    assert_failed(done, 3, "900000 hours", "WINE_WINDOW_HOURS", "make simulate")


@pytest.mark.usefixtures("store")
def test_the_page_is_written_once_enough_wines_were_asked(served: Served, tmp_path: Path) -> None:
    environment, page = served.environment | {"WINE_WINDOW_ROWS": "200"}, tmp_path / "reports" / "index.html"
    fill_log(served, 30, SPAN.since - 1_000)
    missing = run_here("monitoring.page", environment)
    assert_failed(missing, 3, "30", "200", "170", "WINE_WINDOW_ROWS", "make simulate")
    assert not page.exists()
    fill_log(served, 420)
    done = run_here("monitoring.page", environment)
    assert done.returncode == 0, done.stderr
    assert f"2 windows of version 1, no alarm: {page}" in done.stdout
    assert done.stdout.endswith(f"Next: open {page} in a browser\n")
    assert len(re.findall("<figure ", page.read_text())) == 8
