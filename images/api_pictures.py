"""Pictures of the API: its page, its description, a request and its answer."""

import json
from typing import TYPE_CHECKING

from images.browser import open_page, photograph, photograph_part
from images.picture import Picture
from wine_data.schema import EXAMPLE

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Not the wine that the form begins with: the model has learned from that one, and is sure of it.
WINE = EXAMPLE | {"alcohol": 11.2, "residual_sugar": 5.1, "density": 0.9945}
OTHER_ANSWERS = """
.responses-table:not(.live-responses-table), .responses-inner > div > h4, .opblock-description-wrapper,
.parameters-container { display: none }
"""


def take_page(address: str, browser: "Browser") -> bytes:
    """The form of the API after a wine was graded."""
    from playwright.sync_api import expect

    with open_page(browser) as page:
        page.goto(f"{address}/")
        for name in ("alcohol", "residual_sugar", "density"):
            page.locator(f"#{name}").fill(f"{WINE[name]:g}")
        page.get_by_role("button", name="Predict the grade").click()
        expect(page.get_by_role("status")).to_contain_text("Grade ")
        return photograph_part(page, page.locator("body"), margin=0)


def take_docs(address: str, browser: "Browser") -> bytes:
    """The list of routes at /docs."""
    with open_page(browser) as page:
        page.goto(f"{address}/docs")
        page.get_by_text("/metrics").first.wait_for()
        return photograph_part(page, page.locator(".opblock").last)


def take_answer(address: str, browser: "Browser") -> bytes:
    """A request that was made at /docs, and its answer."""
    with open_page(browser) as page:
        page.goto(f"{address}/docs")
        page.locator(".opblock", has_text="/predict").first.click()
        page.get_by_role("button", name="Try it out").click()
        page.locator("textarea").fill(json.dumps(WINE, indent=1))
        page.get_by_role("button", name="Execute").click()
        page.locator(".live-responses-table").wait_for()
        page.add_style_tag(content=OTHER_ANSWERS)
        return photograph(page.locator(".opblock.is-open"))


API_PICTURES = (
    Picture("api_page", lambda stage, browser: take_page(stage.api, browser)),
    Picture("api_docs", lambda stage, browser: take_docs(stage.api, browser)),
    Picture("api_answer", lambda stage, browser: take_answer(stage.api, browser)),
)
