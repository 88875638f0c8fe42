"""The page of monitoring: what stands in it, and how a real browser shows it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser

from commands import NotThereError
from deployment.prediction_log.reader import REFUSAL_COLUMNS
from deployment.prediction_log.windows import Span, Window
from experiment_tracking.registry.promotion import PROMOTED, REFUSED, ROLLED_BACK, Record
from monitoring.drift import FEWEST, INPUTS, QUALITY, REFUSALS, Check
from monitoring.report.figures import MAP_ROWS, plot_coverage, plot_drift, plot_quality, tabulate_drift
from monitoring.report.marks import ALARM, PROMOTION, Mark
from monitoring.report.page_layout import PAGE, list_reports, make_marks, render_page, write_page
from monitoring.report.record import RETRAINING, MonitoringRun
from monitoring.watch import Watch, WindowReport, raise_alarm, report_window
from tests.answers import answer_wines, make_champion
from tests.conftest import needs_browser
from tests.messages import find_lines, naming
from tests.visits import Visit, visit_page
from wine_data.schema import FEATURES, TARGET
from wine_data.sources.load import WineData
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.bundle import Bundle

START = datetime(2026, 6, 1, 21, tzinfo=UTC).timestamp()
HOUR = 3600.0
NOW = START + 20.5 * HOUR
PICTURES = {"drift", "quality", "coverage", "confidence", "grades", "traffic", "pace", "latency"}
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory, twin: WineData) -> Bundle:
    return make_champion(tmp_path_factory.mktemp("champion"), twin, "3")


@pytest.fixture(scope="module")
def watch(champion: Bundle) -> Watch:
    """Twenty hours: from the thirteenth on the alcohol rises, and in the last two some of it is refused."""
    alcohol, refused = [0.0] * 12 + [0.35 * hour for hour in range(1, 9)], [0] * 18 + [40] * 2
    windows = [make_report(champion, hour, alcohol=alcohol[hour], refused=refused[hour]) for hour in range(20)]
    return watch_windows(champion, windows)


@pytest.fixture(scope="module")
def folder(watch: Watch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, after a monitoring run for each window and some promotions, with reports beside it."""
    actions = {14: f"{RETRAINING}: wine-retraining/brave-otter", 15: "cooling down", 16: "", 19: ""}
    runs = [
        make_run(window.span, "drift of alcohol" if number in actions else "", actions.get(number, ""))
        for number, window in enumerate(watch.windows)
    ]
    records = [
        Record(PROMOTED, moment(START - 90 * HOUR), "ada", "1", "2", "better", ""),
        Record(PROMOTED, moment(START + 6.2 * HOUR), "ada", "2", "3", "better", ""),
        Record(PROMOTED, moment(START + 16.6 * HOUR), "ada", "3", "4", "better", ""),
        Record(REFUSED, moment(START + 16.9 * HOUR), "grace", "4", "5", "worse", ""),
        Record(ROLLED_BACK, moment(START + 17.4 * HOUR), "grace", "4", "3", "", "customers complained"),
    ]
    folder = tmp_path_factory.mktemp("monitoring reports")
    for name in ("2026-06-02T11:00:05", "2026-06-02T12:00:05"):
        (folder / name).mkdir()
        for report in ("inputs", "predictions", "quality & more"):
            (folder / name / f"{report}.html").write_text("<!doctype html><title>A report</title>")
    write_page(watch, runs, records, folder, NOW)
    return folder


@pytest.fixture
def text(folder: Path) -> str:
    """The whole page."""
    return (folder / PAGE).read_text()


def make_report(
    champion: Bundle, number: int, count: int = 300, alcohol: float = 0.0, refused: int = 0, field: str = "alcohol"
) -> WindowReport:
    """Report a window of so many answers and refusals; three tenths of the wines of the first 15 hours are graded."""
    span = Span(START + number * HOUR, START + (number + 1) * HOUR)
    wines = sample_twin(count, seed=100 + number)
    wines["alcohol"] += alcohol
    answers = answer_wines(champion, wines, np.linspace(span.since, span.until - 1, count))
    refusals = [(span.since, f"no{number}", "/predict", 422, field, "is too high", 1) for number in range(refused)]
    answers["quality"] = wines[TARGET].where((wines.index % 10 < 3) & (number < 15)).astype("float64")
    window = Window(span, answers, pd.DataFrame(refusals, columns=list(REFUSAL_COLUMNS)))
    return report_window(window, champion.metadata)


def make_run(span: Span, reason: str, action: str, version: str = "3") -> MonitoringRun:
    return MonitoringRun(moment(span.until + 5), "run", version, span.since, span.until, reason, action, 0)


def watch_windows(champion: Bundle, windows: Sequence[WindowReport]) -> Watch:
    return Watch(champion.metadata, tuple(windows), raise_alarm([(window.span, window.checks) for window in windows]))


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def read_pictures(page: str) -> dict[str, str]:
    return dict(re.findall(r'<figure [^>]*id="(\w+)">(.*?)</figure>', page, re.DOTALL))


def test_the_cell_of_a_drifted_feature_is_marked(watch: Watch) -> None:
    offsets = plot_drift(watch.windows).axes[0].collections[1].get_offsets()
    dots = {(int(column), int(row)) for column, row in np.asarray(offsets)}
    alcohol = list(MAP_ROWS).index("alcohol")
    assert {column for column, row in dots if row == alcohol} >= set(range(14, 20))
    assert not [column for column, _ in dots if column < 12]
    assert (19, list(MAP_ROWS).index("refusals")) in dots


def test_a_cell_without_a_check_is_left_grey(champion: Bundle) -> None:
    windows = [make_report(champion, 15, count=FEWEST - 1), make_report(champion, 16)]
    strengths, drifted = tabulate_drift(windows)
    assert np.isnan(strengths[:, 0]).all()
    assert not drifted[:, 0].any()
    known = [name for name, strength in zip(MAP_ROWS, strengths[:, 1], strict=True) if not np.isnan(strength)]
    assert known == [*FEATURES, "predicted grades", "confidence", "refusals"]


def test_a_cell_sums_up_its_checks(watch: Watch) -> None:
    outside = [Check(INPUTS, "alcohol", {}, 1, 0.5), Check(INPUTS, "alcohol outside", {}, 0, 2.5, True)]
    refused = [Check(REFUSALS, f"{name} refused", {}, 1, 0.75) for name in FEATURES[:4]]
    strengths, drifted = tabulate_drift([replace(watch.windows[0], checks=(*outside, *refused))])
    alcohol, refusals = list(MAP_ROWS).index("alcohol"), list(MAP_ROWS).index("refusals")
    assert (strengths[alcohol, 0], drifted[alcohol, 0]) == (2.5, True)  # the stronger
    assert (strengths[refusals, 0], drifted[refusals, 0]) == (3, False)  # of all fields


def test_an_estimate_is_dashed_and_says_what_it_is(watch: Watch) -> None:
    lines = plot_quality(watch.windows, promised=0.5).axes[0].lines
    (estimate,) = [line for line in lines if find_lines(str(line.get_label()), "estimate")]
    assert estimate.get_linestyle() == "--"


def test_coverage_is_shown_beside_what_the_sets_promise(watch: Watch) -> None:
    axis = plot_coverage(watch.windows, levels=list(watch.metadata.grade_sets)).axes[0]
    promised = [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":"]  # type: ignore[index]
    assert promised == [0.8, 0.9]
    quality = watch.windows[0].quality
    assert quality is not None
    assert 0.6 < quality.metrics["coverage_80"] < quality.metrics["coverage_90"] <= 1
    assert [len(bars[0].get_xdata()) for bars in axis.containers] == [15, 15]


def test_alarms_promotions_and_rollbacks_are_marked(text: str) -> None:
    pictures = read_pictures(text)
    assert set(pictures) == PICTURES
    for picture in pictures.values():
        texts = re.findall(r"<text[^>]*>(.*?)</text>", picture)
        assert {"alarm \N{MULTIPLICATION SIGN}3", "alarm", "version 3", "version 4", "back to 3"} <= set(texts)
        assert "version 2" not in texts  # before the first window


def test_an_alarm_is_marked_once_at_the_end_of_its_window(watch: Watch) -> None:
    marks = make_marks([make_run(watch.windows[5].span, "drift of alcohol", "")] * 2, [])
    assert marks == [Mark(watch.windows[5].span.until, "alarm", ALARM)] * 2
    assert [text.get_text() for text in plot_drift(watch.windows, marks).axes[0].texts] == ["alarm"]


def test_a_promotion_after_the_last_window_is_marked_at_its_end(watch: Watch) -> None:
    axis = plot_drift(watch.windows, [Mark(NOW + 9 * HOUR, "version 9", PROMOTION)]).axes[0]
    ends = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"]  # type: ignore[index]
    assert ends == [len(watch.windows) - 0.5]


def test_the_page_says_what_raised_the_alarm_and_what_was_done(watch: Watch, text: str) -> None:
    assert re.search(r'class="verdict alarm"[^>]*><strong>[^<]*\b2026-06-02\b', text)
    assert len(watch.alarm.findings) >= 2
    for finding in watch.alarm.findings:
        assert f"<li>{escape(finding.sentence())}</li>" in text
    assert "<dt>refused</dt><dd>80</dd>" in text
    assert '<tr class=drifted><th scope="row">alcohol</th>' in text
    assert re.search(r"\b20 runs\b[^<]*\b4 alarms\b", text)
    for cell in (f"{RETRAINING}: wine-retraining/brave-otter", "cooling down", "customers complained", "by grace"):
        assert f"<td>{cell}</td>" in text


def test_a_single_drifted_window_is_shown_and_is_no_alarm(champion: Bundle) -> None:
    watch = watch_windows(champion, [make_report(champion, 0), make_report(champion, 1, alcohol=2)])
    page = render_page(watch, [], [], [], NOW)
    assert 'class="verdict alarm"' not in page
    assert re.search(r'class="verdict"[^>]*><strong>[^<]*</strong><p>[^<]*\balcohol\b', page)


def test_what_comes_from_the_log_is_escaped(champion: Bundle) -> None:
    window = make_report(champion, 0, refused=20, field=HOSTILE)
    hostile = Check(QUALITY, HOSTILE, {HOSTILE: 1.0}, 0.0, 2.0, drifted=True)
    checks = (*window.checks, hostile)
    refusals = {HOSTILE: 20, '"><img src=x>': 1}
    window = replace(window, refusals=refusals, versions={HOSTILE: 1}, part=HOSTILE, checks=checks)
    page = render_page(
        watch_windows(champion, [window, window]),
        [make_run(window.span, HOSTILE, HOSTILE, HOSTILE)],
        [Record(PROMOTED, moment(START + 9), HOSTILE, HOSTILE, "$x^2$ \x00\x1b<b>", HOSTILE, HOSTILE)],
        [Path(HOSTILE.replace("/", "")) / f"{HOSTILE.replace('/', '')}.html"],
        NOW,
    )
    for markup in ("<script", "<img", "<b>"):
        assert markup not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<!--" not in page.replace("<!doctype", "")
    assert ">version $x^2$ &lt;b&gt;<" in page  # as it is, and not as a formula


def test_a_window_of_which_little_is_known_is_no_trouble(champion: Bundle) -> None:
    unknown = make_report(champion, 0, count=0, refused=250)
    unknown = replace(unknown, quality=None, estimate=None, low_confidence=None, health=None)
    for windows in ([unknown], [unknown, make_report(champion, 1), replace(unknown, checks=())]):
        page = render_page(watch_windows(champion, windows), [], [], [], NOW)
        assert set(read_pictures(page)) == PICTURES
        assert "no answers" in page
        assert "nan" not in page


def test_the_same_data_give_the_same_page_but_for_the_time_it_was_made(watch: Watch) -> None:
    pages = [render_page(watch, [], [], [], now).splitlines() for now in (NOW, NOW + 99)]
    assert pages[0] != pages[1]
    first, second = ([line for line in page if not line.startswith("<p>Made ")] for page in pages)
    assert first == second


def test_text_in_pictures_is_text_and_has_no_style_of_its_own(text: str) -> None:
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for name, picture in read_pictures(text).items():
        assert len(re.findall(r"<text [^>]*font-size=", picture)) > 5, name
        assert not re.search(r"style=|<style|<image|http", picture), name


def test_a_page_that_cannot_be_written_leaves_what_is_there(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / PAGE).mkdir()
    with pytest.raises(NotThereError, match=naming(str(tmp_path), "WINE_MONITORING_REPORTS")):
        write_page(watch, [], [], tmp_path, NOW)
    assert [path.name for path in tmp_path.iterdir()] == [PAGE]


def test_reports_are_listed_the_newest_first(tmp_path: Path) -> None:
    newest_first = ["20260602T210000/inputs.html", "20260602T210000/quality.html", "20260601T210000/inputs.html"]
    for name in (*newest_first[::-1], ".partial/inputs.html", "index.html", "20260603T210000/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in list_reports(tmp_path)] == newest_first
    assert list_reports(tmp_path / "nowhere") == []


@pytest.fixture(params=[1200, 360])
def visit(request: pytest.FixtureRequest, browser: Browser, folder: Path) -> Iterator[Visit]:
    with visit_page(browser, (folder / PAGE).as_uri(), request.param) as visit:
        yield visit


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
    assert visit.asked_of_servers == [(folder / PAGE).as_uri()]


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
