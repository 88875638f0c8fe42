"""The page of monitoring: what stands in it, and how a real browser shows it."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from playwright.sync_api import Browser, Page
from sklearn.ensemble import RandomForestClassifier

from commands import DONE, NotThereError
from deployment.prediction_log.reader import REFUSAL_COLUMNS
from deployment.prediction_log.tables import PREDICTIONS, make_engine, prepare_tables
from deployment.prediction_log.windows import Span, Window
from experiment_tracking.registry.promotion import PROMOTED, REFUSED, ROLLED_BACK, Record
from monitoring.alarm import raise_alarm
from monitoring.drift import FEWEST, QUALITY, Check
from monitoring.page import main
from monitoring.report.figures import ROWS, plot_drift, plot_quality, tabulate_drift
from monitoring.report.marks import ALARM, PROMOTION, Mark
from monitoring.report.page_layout import PAGE, list_reports, make_marks, render_page, write_page
from monitoring.report.record import RETRAINING, MonitoringRun
from monitoring.watch import Watch, WindowReport, report_window
from settings import Settings, load_settings
from tests.conftest import Store, needs_browser
from tests.told import find_lines, naming
from wine_data.schema import FEATURES, TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import split_wines
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.bundle.files import pickle_model, select_bundle, write_bundle
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.evaluate import Evaluation, evaluate_leak_free
from wine_quality_training.models import impute_before

START = datetime(2026, 6, 1, 21, tzinfo=UTC).timestamp()
HOUR = 3600.0
NOW = START + 20.5 * HOUR
PICTURES = ("drift", "quality", "confidence", "grades", "traffic", "pace", "latency")
HOSTILE = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Model:
    """A small forest and what it learned from."""

    evaluation: Evaluation
    metadata: ModelMetadata


@pytest.fixture(scope="module")
def model(twin: WineData) -> Model:
    split = split_wines(twin.train, twin.validation, folds=2, seed=42)
    forest = impute_before(RandomForestClassifier(20, random_state=1, n_jobs=1))
    evaluation = evaluate_leak_free("RandomForestClassifier", forest, split)
    metadata = describe_model(evaluation, twin, split.train, name="wine-quality", version="3", run_id="run3")
    return Model(evaluation, metadata)


@pytest.fixture(scope="module")
def history(model: Model) -> tuple[WindowReport, ...]:
    """Twenty hours: from the thirteenth on the alcohol rises, and in the last two some of it is refused."""
    return tuple(
        make_report(
            model, number, alcohol=0.35 * max(number - 11, 0), graded=0.3 if number < 15 else 0.0,
            refused=0 if number < 18 else 40,
        )
        for number in range(20)
    )  # fmt: skip


@pytest.fixture(scope="module")
def watch(model: Model, history: Sequence[WindowReport]) -> Watch:
    return watch_windows(model, history)


@pytest.fixture(scope="module")
def looks(history: Sequence[WindowReport]) -> list[MonitoringRun]:
    alarmed = (14, 15, 16, 19)
    return [
        MonitoringRun(
            moment(window.span.until + 5), f"run{number}", "3" if number > 6 else "2", window.span.since,
            window.span.until, "drift of alcohol" if number in alarmed else "",
            {14: f"{RETRAINING}: wine-retraining/brave-otter", 15: "cooling down"}.get(number, ""), 0,
        )
        for number, window in enumerate(history)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[Record]:
    verdict = "kappa on the holdout +0.031, at least +0.012 with 95 % confidence"
    return [
        Record(PROMOTED, moment(START - 90 * HOUR), "ada", "1", "2", verdict, ""),
        Record(PROMOTED, moment(START + 6.2 * HOUR), "ada", "2", "3", verdict, ""),
        Record(PROMOTED, moment(START + 16.6 * HOUR), "ada", "3", "4", verdict, ""),
        Record(REFUSED, moment(START + 16.9 * HOUR), "grace", "4", "5", "kappa on the holdout -0.002", ""),
        Record(ROLLED_BACK, moment(START + 17.4 * HOUR), "grace", "4", "3", "", "customers complained"),
    ]


@pytest.fixture(scope="module")
def text(watch: Watch, looks: Sequence[MonitoringRun], records: Sequence[Record]) -> str:
    """The whole page."""
    return render_page(watch, looks, records, [], NOW)


def make_report(
    model: Model, number: int, count: int = 300, alcohol: float = 0.0, graded: float = 0.0, refused: int = 0,
    field: str = "alcohol", hours: float = 1.0,
) -> WindowReport:  # fmt: skip
    """What monitoring says of a window of `count` answers, in the so many'th hour."""
    span = Span(START + number * hours * HOUR, START + (number + 1) * hours * HOUR)
    answers = answer_wines(model, sample_twin(count, seed=100 + number), span, alcohol, graded)
    refusals = pd.DataFrame(
        [(span.since, f"no{number}", "/predict", 422, field, "is too high") for number in range(refused)],
        columns=list(REFUSAL_COLUMNS),
    )
    return report_window(Window(span, answers, refusals), model.metadata)


def answer_wines(model: Model, wines: pd.DataFrame, span: Span, alcohol: float, graded: float) -> pd.DataFrame:
    random = np.random.default_rng(int(span.since))
    table = feature_frame(wines.assign(alcohol=wines["alcohol"] + alcohol))
    pipeline = model.evaluation.pipeline
    rows = pipeline.predict_proba(table) if len(table) else np.empty((0, len(pipeline.classes_)))
    return table.assign(
        prediction=np.array(pipeline.classes_, dtype="int64")[rows.argmax(axis=1)],
        probabilities=[json.dumps(dict(zip(map(str, pipeline.classes_), row.tolist(), strict=True))) for row in rows],
        expected_quality=rows @ pipeline.classes_,
        latency_ms=random.gamma(4, 1.5, len(table)) + 2,
        time=np.linspace(span.since, span.until - 1, len(table)),
        request_id=[f"request{number}" for number in range(len(table))],
        version=model.metadata.version,
        quality=wines[TARGET].where(random.random(len(table)) < graded).astype("float64"),
        confidence=rows.max(axis=1, initial=0),
    )


def watch_windows(model: Model, windows: Sequence[WindowReport]) -> Watch:
    return Watch(model.metadata, tuple(windows), raise_alarm([(window.span, window.checks) for window in windows]))


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def list_dots(figure: Figure) -> set[tuple[int, int]]:
    """Column and row of the dots in a heat strip."""
    dots = figure.axes[0].collections[1].get_offsets()
    return {(int(column), int(row)) for column, row in np.asarray(dots)}


def read_pictures(page: str) -> dict[str, str]:
    return dict(re.findall(r'<figure [^>]*id="(\w+)">(.*?)</figure>', page, re.DOTALL))


def test_the_cell_of_a_drifted_feature_is_marked(history: Sequence[WindowReport]) -> None:
    dots = list_dots(plot_drift(history))
    alcohol = list(ROWS).index("alcohol")
    assert {column for column, row in dots if row == alcohol} >= set(range(14, 20))
    assert not [column for column, _ in dots if column < 12]
    assert (19, list(ROWS).index("refusals")) in dots


def test_a_cell_without_a_check_is_left_grey(model: Model) -> None:
    windows = [make_report(model, 0, count=FEWEST - 1), make_report(model, 1)]
    strengths, drifted = tabulate_drift(windows)
    assert np.isnan(strengths[:, 0]).all()
    assert not drifted[:, 0].any()
    known = [name for name, strength in zip(ROWS, strengths[:, 1], strict=True) if not np.isnan(strength)]
    assert known == [*FEATURES, "predicted grades", "confidence", "refusals"]


def test_a_feature_is_as_drifted_as_its_wines_outside_the_range(history: Sequence[WindowReport]) -> None:
    checks = (Check("inputs", "alcohol", {}, 1, 0.5), Check("inputs", "alcohol outside", {}, 0, 2.5, True))
    strengths, drifted = tabulate_drift([replace(history[0], checks=checks)])
    assert strengths[list(ROWS).index("alcohol"), 0] == 2.5
    assert drifted[list(ROWS).index("alcohol"), 0]


def test_refusals_of_all_fields_are_added_up(history: Sequence[WindowReport]) -> None:
    checks = tuple(Check("refusals", f"{name} refused", {}, 1, 0.75) for name in FEATURES[:4])
    strengths, _ = tabulate_drift([replace(history[0], checks=checks)])
    assert strengths[list(ROWS).index("refusals"), 0] == 3


def test_an_estimate_is_dashed_and_says_what_it_is(history: Sequence[WindowReport]) -> None:
    lines = plot_quality(history, promised=0.5).axes[0].lines
    (estimate,) = [line for line in lines if find_lines(str(line.get_label()), "estimate")]
    assert estimate.get_linestyle() == "--"


def test_alarms_promotions_and_rollbacks_are_marked(text: str) -> None:
    pictures = read_pictures(text)
    assert set(pictures) == set(PICTURES)
    for picture in pictures.values():
        texts = re.findall(r"<text[^>]*>(.*?)</text>", picture)
        assert {"alarm \N{MULTIPLICATION SIGN}3", "alarm", "version 3", "version 4", "back to 3"} <= set(texts)
        assert "version 2" not in texts  # before the first window


def test_the_alarm_of_a_window_that_was_looked_at_twice_is_one_mark(history: Sequence[WindowReport]) -> None:
    twice = [Mark(history[5].span.until, "alarm", ALARM)] * 2
    texts = [text.get_text() for text in plot_drift(history, twice).axes[0].texts]
    assert texts == ["alarm"]


def test_a_move_after_the_last_window_stands_at_its_end(history: Sequence[WindowReport]) -> None:
    axis = plot_drift(history, [Mark(NOW + 9 * HOUR, "version 9", PROMOTION)]).axes[0]
    ends = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"]  # type: ignore[index]
    assert ends == [len(history) - 0.5]


def test_the_page_says_what_raised_the_alarm(watch: Watch, text: str) -> None:
    assert re.search(r'class="verdict alarm"[^>]*><strong>[^<]*\b2026-06-02\b', text)
    assert len(watch.alarm.findings) >= 2
    for finding in watch.alarm.findings:
        assert f"<li>{escape(finding.sentence())}</li>" in text
    assert "<dt>refused</dt><dd>80</dd>" in text
    assert '<tr class=drifted><th scope="row">alcohol</th>' in text


def test_a_single_drifted_window_is_told_and_is_no_alarm(model: Model) -> None:
    page = render_page(watch_windows(model, [make_report(model, 0), make_report(model, 1, alcohol=2)]), [], [], [], NOW)
    assert 'class="verdict alarm"' not in page
    assert re.search(r'class="verdict"[^>]*><strong>[^<]*</strong><p>[^<]*\balcohol\b', page)


def test_what_was_done_about_an_alarm_is_told(text: str) -> None:
    assert re.search(r"\b20 runs\b[^<]*\b4 alarms\b", text)
    for told in (f"{RETRAINING}: wine-retraining/brave-otter", "cooling down", "customers complained", "by grace"):
        assert f"<td>{told}</td>" in text


def test_what_comes_from_the_log_is_escaped(model: Model) -> None:
    window = make_report(model, 0, refused=20, field=HOSTILE)
    hostile = Check(QUALITY, HOSTILE, {HOSTILE: 1.0}, 0.0, 2.0, drifted=True)
    window = replace(
        window, refusals={HOSTILE: 20, '"><img src=x>': 1}, versions={HOSTILE: 1}, part=HOSTILE,
        checks=(*window.checks, hostile),
    )  # fmt: skip
    page = render_page(
        watch_windows(model, [window, window]),
        [MonitoringRun(moment(NOW), HOSTILE, HOSTILE, START, START + HOUR, HOSTILE, HOSTILE, 0)],
        [Record(PROMOTED, moment(START + 9), HOSTILE, HOSTILE, "$x^2$ \x00\x1b<b>", HOSTILE, HOSTILE)],
        [Path(HOSTILE.replace("/", "")) / f"{HOSTILE.replace('/', '')}.html"],
        NOW,
    )
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<!--" not in page.replace("<!doctype", "")
    assert ">version $x^2$ &lt;b&gt;<" in page  # as it is, and not as a formula


def test_a_window_of_which_little_is_known_is_no_trouble(model: Model) -> None:
    unknown = replace(
        make_report(model, 0, count=0, refused=250), quality=None, estimate=None, low_confidence=None, health=None
    )
    assert unknown.answered == 0
    for windows in ([unknown], [unknown, make_report(model, 1, graded=0.5), replace(unknown, checks=())]):
        page = render_page(watch_windows(model, windows), [], [], [], NOW)
        assert set(read_pictures(page)) == set(PICTURES)
        assert "no answers" in page
        assert "nan" not in page


def test_the_same_data_give_the_same_page_but_for_the_time_it_was_made(
    watch: Watch, looks: Sequence[MonitoringRun], records: Sequence[Record], text: str, tmp_path: Path
) -> None:
    later = write_page(watch, looks, records, tmp_path, NOW + 99).read_text()
    first, second = ([line for line in page.splitlines() if not line.startswith("<p>Made ")] for page in (text, later))
    assert first == second
    assert text != later
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_text_in_pictures_is_text_and_has_no_style_of_its_own(text: str) -> None:
    for name, picture in read_pictures(text).items():
        assert len(re.findall(r"<text [^>]*font-size=", picture)) > 5, name
        assert not re.search(r"style=|<style|<image|http", picture), name


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitoring.report.page_layout.render_page", lambda *given: "a new page")
    (tmp_path / PAGE).mkdir()
    with pytest.raises(NotThereError, match="WINE_MONITORING_REPORTS"):
        write_page(watch, [], [], tmp_path, NOW)
    assert [path.name for path in tmp_path.iterdir()] == [PAGE]
    (tmp_path / "file").touch()
    with pytest.raises(NotThereError, match=naming(str(tmp_path / "file"), "WINE_MONITORING_REPORTS")):
        write_page(watch, [], [], tmp_path / "file", NOW)


def test_reports_are_listed_the_newest_first(tmp_path: Path) -> None:
    for name in ("20260601T210000/inputs.html", "20260602T210000/inputs.html", "20260602T210000/quality.html",
                 ".partial/inputs.html", "index.html", "20260603T210000/notes.txt"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in list_reports(tmp_path)] == [
        "20260602T210000/inputs.html", "20260602T210000/quality.html", "20260601T210000/inputs.html",
    ]  # fmt: skip
    assert list_reports(tmp_path / "nowhere") == []


def test_an_alarm_is_marked_at_the_end_of_its_window() -> None:
    marks = make_marks([MonitoringRun(moment(NOW), "run", "3", START, START + HOUR, "drift of alcohol", "", 0)], [])
    assert marks == [Mark(START + HOUR, "alarm", ALARM)]


@pytest.fixture
def settings(model: Model, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a project whose model serves and has a log with 30 wines in it, in the environment too."""
    select_bundle(write_bundle(store.models, pickle_model(model.evaluation.pipeline), model.metadata))
    given = {
        "serving_models": store.models,
        "log_url": f"sqlite:///{tmp_path / 'predictions.db'}",
        "monitoring_reports": tmp_path / "reports",
        "window_rows": 200,
    }
    for name, value in given.items():
        monkeypatch.setenv(f"WINE_{name.upper()}", str(value))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store.folder / 'mlflow.db'}")
    monkeypatch.setenv("WINE_MLFLOW_ARTIFACTS", str(store.folder / "mlartifacts"))
    monkeypatch.setattr("sys.argv", ["page"])
    log_answers(model, str(given["log_url"]), 30)
    return load_settings()


def log_answers(model: Model, url: str, count: int) -> None:
    """Log so many answers, a second apart, the last of them a minute ago."""
    until = time.time() - 60
    span = Span(until - count, until)
    answers = answer_wines(model, sample_twin(count, seed=count), span, alcohol=0, graded=0)
    answers["request_id"] = [f"{count}-{number}" for number in range(count)]
    engine = make_engine(url)
    prepare_tables(engine)
    with engine.begin() as connection:
        rows = answers.assign(run_id="run3")[[column.name for column in PREDICTIONS.columns]]
        rows.to_sql(PREDICTIONS.name, connection, if_exists="append", index=False)
    engine.dispose()


def test_the_command_says_how_many_wines_are_missing_and_then_writes_the_page(
    model: Model, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    page = settings.monitoring_reports / PAGE
    with pytest.raises(NotThereError, match=naming("30", "200", "170", "WINE_WINDOW_ROWS", "make simulate")):
        main()
    assert not page.exists()
    log_answers(model, settings.log_url, 420)
    capsys.readouterr()
    assert main() == DONE
    told = capsys.readouterr().out
    assert f"2 windows of version 3, no alarm: {page}" in told
    assert told.endswith(f"Next: open {page} in a browser\n")
    assert set(read_pictures(page.read_text())) == set(PICTURES)


@pytest.mark.usefixtures("settings")
def test_before_a_window_is_full_the_command_says_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINE_WINDOW_HOURS", "900000")
    with pytest.raises(NotThereError, match=naming("900000 hours", "WINE_WINDOW_HOURS", "make simulate")):
        main()


@dataclass
class Visit:
    """A page that is open, with what it asked for and what its console said."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, address: str) -> None:
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.goto(address)


@pytest.fixture(scope="module")
def folder(
    watch: Watch, looks: Sequence[MonitoringRun], records: Sequence[Record], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The page, with reports beside it."""
    folder = tmp_path_factory.mktemp("monitoring reports")
    for name in ("2026-06-02T11:00:05", "2026-06-02T12:00:05"):
        (folder / name).mkdir()
        for report in ("inputs", "predictions", "quality & more"):
            (folder / name / f"{report}.html").write_text("<!doctype html><title>A report</title>")
    write_page(watch, looks, records, folder, NOW)
    return folder


@pytest.fixture(params=[1200, 360])
def visit(request: pytest.FixtureRequest, browser: Browser, folder: Path) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    visit = Visit(page)
    visit.open((folder / PAGE).as_uri())
    yield visit
    page.close()


@needs_browser
def test_every_picture_is_shown_and_nothing_else_is_asked_for(visit: Visit, folder: Path) -> None:
    for name in PICTURES:
        picture = visit.page.locator(f"#{name}")
        box = picture.get_by_role("img").bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 100
        assert picture.get_by_role("img").get_attribute("aria-label") == picture.get_by_role("heading").inner_text()
        assert picture.locator("figcaption").inner_text().endswith(".")
    assert visit.complaints == []
    assert [url for url in visit.asked if not url.startswith("data:")] == [(folder / PAGE).as_uri()]


@needs_browser
def test_links_lead_to_files_that_are_there(visit: Visit) -> None:
    links: list[str] = visit.page.eval_on_selector_all("a", "all => all.map(link => link.href)")
    assert len(links) == 6
    for link in links:
        visit.page.goto(link)
        assert visit.page.title() == "A report"


@needs_browser
def test_nothing_lies_outside_the_window_or_its_picture_and_no_words_overlap(visit: Visit) -> None:
    assert visit.page.viewport_size is not None
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= visit.page.viewport_size["width"]
    assert visit.page.evaluate(FIND_COLLISIONS) == []


FIND_COLLISIONS = """() => {
  const found = [], box = element => element.getBoundingClientRect()
  for (const svg of document.querySelectorAll('figure svg')) {
    const name = svg.getAttribute('aria-label'), frame = box(svg)
    const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, box(text)])
    texts.forEach(([words, one], number) => {
      if (one.left < frame.left - 1 || one.right > frame.right + 1 || one.top < frame.top - 1 ||
          one.bottom > frame.bottom + 1) found.push(`${name}: ${words} is clipped`)
      for (const [others, two] of texts.slice(number + 1)) {
        const across = Math.min(one.right, two.right) - Math.max(one.left, two.left)
        const down = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top)
        if (across > 0 && down > one.height / 3) found.push(`${name}: ${words} lies over ${others}`)
      }
    })
  }
  return found
}"""
