"""The page of the API in a real browser, which asks a real server process."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from deployment.api.page import find_policy, render_page
from tests.conftest import isolated_environment, needs_browser, run_api
from tests.test_schema import WINE
from tests.web import WEB
from wine_data.schema import BOUNDS, MEASUREMENTS, SEEN

KEY = "a-long-key"


@dataclass
class Visit:
    """A page that is open, with what it asked for and what its console said."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self.note)

    def note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def submit(self) -> None:
        self.page.get_by_role("button", name="Predict the grade").click()

    def expect_status(self, *metadata: str) -> None:
        for fact in metadata:
            expect(self.page.get_by_role("status")).to_contain_text(fact, ignore_case=True)

    def expect_answer(self) -> None:
        expect(self.page.locator("#answer")).to_be_visible()


def test_every_feature_has_a_labelled_field_with_bounds_and_the_example_in_it() -> None:
    page = render_page("wine-quality", "7")
    for name in MEASUREMENTS:
        label, tag = re.findall(rf'<label for="{name}">|<input [^>]*id="{name}"[^>]*>', page)
        assert label
        assert f'value="{WINE[name]:g}"' in tag
        assert f'min="{BOUNDS[name][0]:g}"' in tag
        assert f'max="{BOUNDS[name][1]:g}"' in tag
        assert "seen: {:g} to {:g}<".format(*SEEN[name]) in page
    assert len(re.findall(r'type="radio"', page)) == 2
    assert "mg / dm³" in page


def test_a_models_name_cannot_bring_markup() -> None:
    page = render_page("<script>alert(1)</script>", '"><!--key-->')
    assert "<script>alert" not in page
    assert "<!--" not in page.replace("<!doctype", "")


def test_the_field_for_a_key_is_there_where_one_is_asked_for() -> None:
    assert 'type="password"' in render_page("wine-quality", "7", needs_key=True)
    assert 'type="password"' not in render_page("wine-quality", "7")


def test_the_page_names_no_other_server() -> None:
    page = render_page("wine-quality", "7", needs_key=True).replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"https?:", page)
    assert not re.findall(r'(?:src|href|action)="(?!docs"|data:)', page)


def test_the_policy_lets_nothing_in_but_this_style_and_script() -> None:
    policy = find_policy(render_page("wine-quality", "7"))
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2


@pytest.fixture(scope="module")
def locked_address(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an API that asks for a key."""
    environment = isolated_environment(tmp_path_factory.mktemp("locked"))
    with run_api(environment, serving_models=bundles, api_key=KEY) as (address, _):
        yield address


@contextmanager
def visit_page(browser: Browser, address: str, width: int = 1280) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": width, "height": 800})
    visit = Visit(page)
    visit.listen()
    page.goto(f"{address}/")
    yield visit
    page.close()


@pytest.fixture
def visit(browser: Browser, small_api: str) -> Iterator[Visit]:
    with visit_page(browser, small_api) as visit:
        yield visit


@needs_browser
def test_a_wine_is_graded_with_a_bar_for_each_grade(visit: Visit, small_api: str) -> None:
    visit.page.get_by_label("Alcohol").fill("12.5")
    visit.page.get_by_text("Red", exact=True).click()
    visit.submit()
    visit.expect_answer()
    answer = WEB.post(f"{small_api}/predict", json=WINE | {"alcohol": 12.5, "red_wine": 1}).raise_for_status().json()
    likeliest = answer["probabilities"][str(answer["prediction"])]
    visit.expect_status(f"Grade {answer['prediction']}", f"{100 * likeliest:.1f} %")
    bars = visit.page.get_by_role("list", name="Probability of each grade").get_by_role("listitem")
    expect(bars).to_have_count(len(answer["probabilities"]))
    for bar, (grade, share) in zip(bars.all(), answer["probabilities"].items(), strict=True):
        expect(bar).to_contain_text(f"{100 * share:.1f} %")
        expect(bar).to_contain_text(f"probability of grade {grade}")
    expect(visit.page.locator(".chosen")).to_contain_text(f"{answer['prediction']}, the predicted grade")
    expect(visit.page.locator("#expected")).to_contain_text(f"{answer['expected_quality']:.2f}")
    expect(visit.page.locator("#model")).to_have_text("wine-quality version 1")
    expect(visit.page.locator("#request")).to_have_text(re.compile(r"^\w{20,}$"))
    expect(visit.page.locator("#warnings")).to_be_hidden()
    assert visit.complaints == []


@needs_browser
def test_bars_are_as_high_as_their_probabilities(visit: Visit) -> None:
    visit.submit()
    visit.expect_answer()
    measured = visit.page.eval_on_selector_all(
        ".bars li",
        "all => all.map(li => [li.querySelector('.bar').offsetHeight, li.querySelector('.share').innerText])",
    )
    heights, shares = zip(*((height, float(text.removesuffix(" %"))) for height, text in measured), strict=True)
    assert heights.index(max(heights)) == shares.index(max(shares))
    for height, share in zip(heights, shares, strict=True):
        assert height == pytest.approx(max(heights) * share / max(shares), abs=2)


@needs_browser
def test_a_wine_unlike_any_seen_is_shown_with_its_warning(visit: Visit) -> None:
    visit.page.get_by_label("Residual sugar").fill("250")
    visit.submit()
    visit.expect_status("warning")
    warnings = visit.page.get_by_role("list", name="Warnings").get_by_role("listitem")
    expect(warnings).to_have_text(re.compile(r"Residual sugar\b.*\b250\b"))


@needs_browser
def test_a_refusal_shows_at_its_field_and_goes_when_it_is_mended(visit: Visit) -> None:
    density = visit.page.get_by_label("Density")
    density.fill("2")
    visit.page.locator("#pH").fill("")
    visit.submit()
    visit.expect_status("Density", "pH")
    expect(visit.page.locator("#density-wrong")).to_contain_text("1.2")
    expect(visit.page.locator("#pH-wrong")).to_contain_text("missing")
    expect(density).to_have_attribute("aria-invalid", "true")
    expect(density).to_be_focused()
    expect(visit.page.locator("#answer")).to_be_hidden()
    visit.page.get_by_role("button", name="Back to the example").click()
    expect(density).to_have_value("1.001")
    visit.submit()
    visit.expect_answer()
    expect(visit.page.locator("#density-wrong")).to_be_hidden()
    expect(visit.page.locator("[aria-invalid]")).to_have_count(0)


@needs_browser
def test_no_request_goes_anywhere_else(visit: Visit, small_api: str) -> None:
    visit.submit()
    visit.expect_answer()
    assert [url for url in visit.asked if not url.startswith("data:")] == [f"{small_api}/", f"{small_api}/predict"]


@needs_browser
def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    visit.page.get_by_label("White").focus()
    visit.page.keyboard.press("ArrowRight")
    expect(visit.page.get_by_label("Red")).to_be_checked()
    for name in MEASUREMENTS:
        visit.page.keyboard.press("Tab")
        expect(visit.page.locator(f"#{name}")).to_be_focused()
    visit.page.keyboard.press("Enter")
    visit.expect_answer()


@needs_browser
@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_nothing_lies_outside_the_window(browser: Browser, small_api: str, width: int) -> None:
    with visit_page(browser, small_api, width) as visit:
        visit.submit()
        visit.expect_answer()
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        expect(visit.page.get_by_role("status")).to_be_in_viewport()


@needs_browser
def test_a_server_that_cannot_be_reached_is_told_in_words(visit: Visit) -> None:
    visit.page.route("**/predict", lambda route: route.abort("connectionrefused"))
    visit.page.get_by_label("Density").fill("1.0004")
    visit.submit()
    visit.expect_status("reached")
    expect(visit.page.get_by_label("Density")).to_have_value("1.0004")


@needs_browser
@pytest.mark.parametrize(
    ("status", "content_type", "body", "facts"),
    [
        (500, "text/plain", "Internal Server Error", ["500"]),
        (200, "text/plain", "fine", ["200"]),
        (
            503,
            "application/problem+json",
            '{"type":"about:blank","title":"Too many requests at once","status":503,"detail":"Come again"}',
            ["Too many requests at once", "Come again", "2 s"],
        ),
        (
            422,
            "application/problem+json",
            '{"title":"<img src=x onerror=alert(1)>","errors":[{"field":"body","reason":"<b>This is not JSON</b>"}]}',
            ["<img src=x onerror=alert(1)>", "body", "<b>This is not JSON</b>"],
        ),
    ],
    ids=["no reason", "no answer", "busy", "markup"],
)
def test_an_answer_of_another_kind_is_told_in_words(
    visit: Visit, status: int, content_type: str, body: str, facts: list[str]
) -> None:
    headers = {"Content-Type": content_type} | ({"Retry-After": "2"} if status == 503 else {})
    visit.page.route("**/predict", lambda route: route.fulfill(status=status, headers=headers, body=body))
    visit.submit()
    visit.expect_status(*facts)
    expect(visit.page.locator("#status *")).to_have_count(0)


@needs_browser
def test_a_key_is_asked_for_sent_and_kept_in_the_page(browser: Browser, locked_address: str) -> None:
    with visit_page(browser, locked_address) as visit:
        key = visit.page.get_by_label("Key")
        visit.submit()
        visit.expect_status("key")
        expect(key).to_be_focused()
        key.fill("wrong")
        with visit.page.expect_response("**/predict") as refusal:
            visit.submit()
        assert refusal.value.status == 401
        visit.expect_status("key")
        expect(visit.page.locator("#key-wrong")).to_contain_text("key")
        key.fill(KEY)
        visit.submit()
        visit.expect_answer()
        assert visit.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        assert not [url for url in visit.asked if KEY in url]
