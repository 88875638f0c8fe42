"""Evidently's pages and figures: of windows made by hand, of files with holes, of a log; opened in a real browser."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, expect

from commands import BadInputError, NotThereError
from deployment.prediction_log.log import LoggedAnswer, PredictionLog
from deployment.prediction_log.windows import Span, Window
from monitoring.drift import compare
from monitoring.report.files import name_folder, report_batch, sample_reference, write_reports
from monitoring.reports import main
from settings import ROOT
from tests.conftest import Served, needs_browser, run_here
from tests.told import list_untold, naming
from wine_data.schema import FEATURES, MEASUREMENTS, TYPE, feature_frame
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.profile import Profile, profile_wines

SPAN = Span(1_790_000_000.0, 1_790_003_600.0)
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
    confidence = np.random.default_rng(1).uniform(0.4, 0.9, ROWS)
    answers = feature_frame(wines).assign(
        prediction=wines["quality"].clip(5, 7),
        confidence=confidence,
        quality=wines["quality"].where(np.arange(ROWS) < graded).astype("float64"),
        version=version,
    )
    return Window(SPAN, answers.assign(**changed), pd.DataFrame({"status": [], "request_id": []}))


def read_figures(path: Path) -> dict[str, Any]:
    """Read JSON as strictly as any other language does: NaN is none."""
    figures: dict[str, Any] = json.loads(
        path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON")
    )
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
    shifted = window.answers.assign(
        alcohol=window.answers["alcohol"] + 1, prediction=window.answers["prediction"].clip(6, 7)
    )
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
    assert find_values(written / "inputs.json", "DriftedColumnsCount")["DriftedColumnsCount"]["count"] == 1
    assert find_drifted(written / "predictions.json") == ["prediction"]


def test_the_figures_are_those_that_the_alarm_goes_by(part: Profile, written: Path) -> None:
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
    assert list_untold(read_figures(written / "quality.json")["title"], "60") == []


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
    assert list_untold(read_figures(tmp_path / "quality.json")["title"], "300", "version 1") == []
    assert list_names(write_reports(mixed, part, tmp_path, version="2")) == ["inputs", "predictions"]
    assert list_untold(read_figures(tmp_path / "predictions.json")["title"], "100", "version 2") == []
    assert list_untold(read_figures(tmp_path / "inputs.json")["title"], "400") == []
    assert list_names(list(tmp_path.iterdir())) == ["inputs", "predictions"]


def test_nothing_is_written_where_nothing_was_answered(part: Profile, tmp_path: Path) -> None:
    window = make_window()
    assert write_reports(replace(window, answers=window.answers.head(0)), part, tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_files_are_whole_and_nothing_else_is_left(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        f"{name}.{ending}" for name in ("inputs", "predictions", "quality") for ending in ("html", "json")
    ]
    for page in written.glob("*.html"):
        assert page.read_text().rstrip().endswith("</html>")
        assert read_figures(page.with_suffix(".json"))["title"] in page.read_text()


def test_a_write_that_fails_leaves_the_report_that_was_there(
    part: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inputs.html").write_text("the report that was there")

    def fill_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device", descriptor)

    monkeypatch.setattr(os, "fsync", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        write_reports(make_window(), part, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["inputs.html"]
    assert (tmp_path / "inputs.html").read_text() == "the report that was there"


@pytest.mark.full
def test_evidently_tells_its_makers_nothing() -> None:
    """In a process whose environment does not ask for it."""
    script = (
        "import monitoring.report.files; monitoring.report.files._import_evidently()\n"
        "from evidently.telemetry import event_logger; print(event_logger.is_enabled())"
    )
    asked = {name: value for name, value in os.environ.items() if name != "DO_NOT_TRACK"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=asked, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """A file of 300 wines with holes, words where numbers belong, infinity and a third colour."""
    cells = sample_twin(300, seed=3).drop(columns=["red_wine", "quality"]).astype(object)
    cells.loc[:9, "pH"] = None
    cells.loc[4:6, "alcohol"] = ["strong", "inf", None]
    cells.loc[7, TYPE] = "rosé"
    cells.loc[8, TYPE] = " Red "
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
    assert list_untold(title[1], "14", "3,600", "may &amp; june.csv") == []


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
def test_a_page_opens_in_a_browser_without_asking_any_other_host(
    browser: Browser, written: Path, name: str, texts: list[str]
) -> None:
    page = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    address = (written / f"{name}.html").as_uri()
    page.goto(address)
    for text in (*texts, "monitoring/alarm.py"):  # which decides an alarm, and no page does
        expect(page.get_by_text(text).first).to_be_visible()
    for arrow in page.locator("tbody tr button").all()[:1]:
        arrow.click()
        expect(page.locator(".js-plotly-plot").first).to_be_visible()
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [address]
    assert complaints == []
    page.close()


def fill_log(environment: dict[str, str], count: int) -> float:
    """Log answers of version 1, a second apart, the last of them a minute ago; return when that was."""
    last = time.time() - 60
    log = PredictionLog(environment["WINE_LOG_URL"], days=90, rows=10_000)
    log.open()
    wines = sample_twin(count, seed=4)
    for number, wine in enumerate(feature_frame(wines).itertuples(index=False)):
        at = last - (count - 1 - number)
        log.add_answer(LoggedAnswer(at, str(number), "1", "run1", tuple(wine), 6, '{"5": 0.25, "6": 0.75}', 5.75, 1.5))
    log.close()
    return last


def test_the_command_reports_the_newest_window_of_the_log(served: Served, tmp_path: Path) -> None:
    environment = served.environment | {"WINE_WINDOW_ROWS": "200"}
    last = fill_log(environment, 250)
    done = run_here("monitoring.reports", environment)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "reports" / f"{datetime.fromtimestamp(last, UTC):%Y-%m-%dT%H-%M-%S}"
    page = folder / "inputs.html"
    assert done.stdout.splitlines() == [str(page), str(folder / "inputs.json"), f"Next: open {page} in a browser"]
    assert list_untold(read_figures(folder / "inputs.json")["title"], "200") == []


def call_main(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *arguments: str) -> None:
    """Run the command here, which saves the ten seconds that Evidently takes to be imported."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["reports", *arguments])
    main()


def test_before_the_first_window_the_command_says_how_many_wines_must_be_asked(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_log(served.environment, 37)
    with pytest.raises(NotThereError, match=naming("37", "1,000", "963", "WINE_WINDOW_ROWS", "make simulate")):
        call_main(monkeypatch, served.environment)


def test_the_command_reports_a_file(
    served: Served, batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call_main(monkeypatch, served.environment, str(batch))
    folder = tmp_path / "reports" / "may & june"
    printed = capsys.readouterr().out.splitlines()
    assert printed[:-1] == [
        str(folder / name) for name in ("missing.html", "missing.json", "inputs.html", "inputs.json")
    ]
    assert str(folder / "missing.html") in printed[-1]


def test_windows_of_hours_are_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_log(served.environment, 3)
    with pytest.raises(NotThereError, match=naming("24 hours", "WINE_WINDOW_HOURS", "make simulate")):
        call_main(monkeypatch, served.environment | {"WINE_WINDOW_HOURS": "24"})


def test_help_names_the_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        call_main(monkeypatch, {}, "--help")
    assert "FILE.csv" in capsys.readouterr().out


def test_a_window_has_a_folder_named_for_its_end() -> None:
    assert name_folder(Span(0.0, 1_795_459_488.9)) == "2026-11-23T18-44-48"
