"""The page of the API in a real browser, which asks a real server process."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Route, expect

from deployment.api.page import find_policy, render_page
from tests.conftest import Served, needs_browser, run_api
from tests.test_schema import WINE
from tests.visits import Visit, visit_page
from tests.web import WEB
from wine_data.schema import BOUNDS, MEASUREMENTS, SEEN

KEY = "a-long-key"


def submit(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Predict the grade").click()


def submit_and_expect_answer(visit: Visit) -> None:
    submit(visit)
    expect(visit.page.locator("#answer")).to_be_visible()


def expect_status(visit: Visit, *facts: str) -> None:
    for fact in facts:
        expect(visit.page.get_by_role("status")).to_contain_text(fact, ignore_case=True)


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


def test_the_policy_lets_nothing_in_but_this_style_and_script() -> None:
    policy = find_policy(render_page("wine-quality", "7"))
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2


@pytest.fixture
def visit(browser: Browser, small_api: str) -> Iterator[Visit]:
    with visit_page(browser, f"{small_api}/") as visit:
        yield visit


@needs_browser
def test_a_wine_is_graded_with_a_bar_for_each_grade(visit: Visit, small_api: str) -> None:
    visit.page.get_by_label("Alcohol").fill("12.5")
    visit.page.get_by_text("Red", exact=True).click()
    submit_and_expect_answer(visit)
    answer = WEB.post(f"{small_api}/predict", json=WINE | {"alcohol": 12.5, "red_wine": 1}).raise_for_status().json()
    likeliest = answer["probabilities"][str(answer["prediction"])]
    expect_status(visit, f"Grade {answer['prediction']}", f"{100 * likeliest:.1f} %")
    bars = visit.page.get_by_role("list", name="Probability of each grade").get_by_role("listitem")
    heights = visit.page.eval_on_selector_all(".bars .bar", "all => all.map(bar => bar.offsetHeight)")
    shares = answer["probabilities"].items()
    for bar, height, (grade, share) in zip(bars.all(), heights, shares, strict=True):
        expect(bar).to_contain_text(f"{100 * share:.1f} %")
        expect(bar).to_contain_text(f"probability of grade {grade}")
        assert height == pytest.approx(max(heights) * share / likeliest, abs=2)
    expect(visit.page.locator(".chosen")).to_contain_text(f"{answer['prediction']}, the predicted grade")
    expect(visit.page.locator("#expected")).to_contain_text(f"{answer['expected_quality']:.2f}")
    expect(visit.page.locator("#model")).to_have_text("wine-quality version 1")
    expect(visit.page.locator("#request")).to_have_text(re.compile(r"^\w{20,}$"))
    expect(visit.page.locator("#warnings")).to_be_hidden()
    assert visit.complaints == []
    assert visit.asked_of_servers == [f"{small_api}/", f"{small_api}/predict?explain=true"]


@needs_browser
def test_what_each_measurement_adds_is_drawn_largest_first_to_its_side(visit: Visit, small_api: str) -> None:
    visit.page.get_by_label("Alcohol").fill("12.5")
    submit_and_expect_answer(visit)
    asked = WEB.post(f"{small_api}/predict?explain=true", json=WINE | {"alcohol": 12.5}).raise_for_status().json()
    effects = sorted(asked["explanation"]["effects"].items(), key=lambda effect: -abs(effect[1]))
    rows = visit.page.get_by_role("list", name="What each measurement adds").get_by_role("listitem").all()
    largest = None
    for row, (name, effect) in zip(rows, effects, strict=True):
        label = visit.page.locator(f"#{name}-name").inner_text()
        sign = "+" if effect > 0 else "\u2212" if effect < 0 else ""
        expect(row).to_have_text(re.compile(rf"^{re.escape(label)}rather than .*{re.escape(sign)}{abs(effect):.2f}$"))
        assert row.locator(".effect").count() == bool(effect)
        if effect:
            bar, axis = row.locator(".effect").bounding_box(), row.locator(".axis").bounding_box()
            assert bar
            assert axis
            middle = axis["x"] + axis["width"] / 2
            assert bar["x"] + (0 if effect > 0 else bar["width"]) == pytest.approx(middle, abs=1)
            largest = largest or bar["width"]
            assert bar["width"] == pytest.approx(max(1, largest * abs(effect / effects[0][1])), abs=1)
    assert largest
    assert visit.complaints == []


@needs_browser
def test_an_old_model_that_explains_nothing_is_asked_without(visit: Visit) -> None:
    refusal = '{"title":"This model has no medians","status":409}'
    visit.page.route("**/predict?explain=true", lambda route: route.fulfill(status=409, body=refusal))
    submit_and_expect_answer(visit)
    expect(visit.page.locator("#explanation")).to_be_hidden()
    expect_status(visit, "Grade")


@needs_browser
def test_a_wine_unlike_any_seen_is_shown_with_its_warning(visit: Visit) -> None:
    visit.page.get_by_label("Residual sugar").fill("250")
    submit(visit)
    expect_status(visit, "warning")
    warnings = visit.page.get_by_role("list", name="Warnings").get_by_role("listitem")
    expect(warnings).to_have_text(re.compile(r"Residual sugar\b.*\b250\b"))


@needs_browser
def test_the_grade_sets_of_an_answer_are_shown_in_words_and_none_of_a_model_without(visit: Visit) -> None:
    submit_and_expect_answer(visit)  # of a model without
    expect(visit.page.get_by_text("Grade sets")).to_be_hidden()

    def add_sets(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | {"grade_sets": {"0.8": [6], "0.9": [5, 6, 7]}})

    visit.page.route("**/predict?*", add_sets)
    submit(visit)
    expect(visit.page.locator("#sets")).to_contain_text(re.compile(r"6 alone \(80\s%\), 5 to 7 \(90\s%\)"))


@needs_browser
def test_a_refusal_shows_at_its_field_and_goes_when_it_is_mended(visit: Visit) -> None:
    density = visit.page.get_by_label("Density")
    density.fill("2")
    visit.page.locator("#pH").fill("")
    submit(visit)
    expect_status(visit, "Density", "pH")
    expect(visit.page.locator("#density-wrong")).to_contain_text("1.2")
    expect(visit.page.locator("#pH-wrong")).to_contain_text("missing")
    expect(density).to_have_attribute("aria-invalid", "true")
    expect(density).to_be_focused()
    expect(visit.page.locator("#answer")).to_be_hidden()
    visit.page.get_by_role("button", name="Back to the example").click()
    expect(density).to_have_value("1.001")
    submit_and_expect_answer(visit)
    expect(visit.page.locator("#density-wrong")).to_be_hidden()
    expect(visit.page.locator("[aria-invalid]")).to_have_count(0)


@needs_browser
def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    visit.page.get_by_label("White").focus()
    visit.page.keyboard.press("ArrowRight")
    expect(visit.page.get_by_label("Red")).to_be_checked()
    for name in MEASUREMENTS:
        visit.page.keyboard.press("Tab")
        expect(visit.page.locator(f"#{name}")).to_be_focused()
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#answer")).to_be_visible()


@needs_browser
@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_nothing_lies_outside_the_window(browser: Browser, small_api: str, width: int) -> None:
    with visit_page(browser, f"{small_api}/", width) as visit:
        submit_and_expect_answer(visit)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        expect(visit.page.get_by_role("status")).to_be_in_viewport()


@needs_browser
def test_a_server_that_cannot_be_reached_is_said_to_be(visit: Visit) -> None:
    visit.page.route("**/predict*", lambda route: route.abort("connectionrefused"))
    visit.page.get_by_label("Density").fill("1.0004")
    submit(visit)
    expect_status(visit, "reached")
    expect(visit.page.get_by_label("Density")).to_have_value("1.0004")


@needs_browser
@pytest.mark.parametrize(
    ("status", "body", "facts"),
    [
        (500, "Internal Server Error", ["500"]),
        (200, "fine", ["200"]),
        (503, '{"title":"Too many requests","detail":"Come again"}', ["Too many requests", "Come again", "2 s"]),
        (422, '{"title":"<img src=x>","errors":[{"field":"body","reason":"<b>no</b>"}]}', ["<img src=x>", "<b>no</b>"]),
    ],
    ids=["no reason", "no answer", "busy", "markup"],
)
def test_an_answer_of_another_kind_is_shown_in_words(visit: Visit, status: int, body: str, facts: list[str]) -> None:
    answer = {"status": status, "headers": {"Retry-After": "2"}, "body": body}
    visit.page.route("**/predict*", lambda route: route.fulfill(**answer))
    submit(visit)
    expect_status(visit, *facts)
    expect(visit.page.locator("#status *")).to_have_count(0)


@needs_browser
def test_a_key_is_asked_for_sent_and_kept_in_the_page(browser: Browser, served: Served) -> None:
    assert 'type="password"' not in render_page("wine-quality", "7")
    with run_api(served.environment, api_key=KEY) as (address, _), visit_page(browser, f"{address}/") as visit:
        key = visit.page.get_by_label("Key")
        submit(visit)
        expect_status(visit, "key")
        expect(key).to_be_focused()
        key.fill("wrong")
        with visit.page.expect_response("**/predict*") as refusal:
            submit(visit)
        assert refusal.value.status == 401
        expect_status(visit, "key")
        expect(visit.page.locator("#key-wrong")).to_contain_text("key")
        key.fill(KEY)
        submit_and_expect_answer(visit)
        assert visit.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        assert not [url for url in visit.asked if KEY in url]
