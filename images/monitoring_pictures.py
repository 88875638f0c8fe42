"""Pictures of what was measured while the API answered: the load test's report, monitoring's page and reports."""

from pathlib import Path
from typing import TYPE_CHECKING

from images.browser import open_page, photograph_part
from images.picture import MEASURED, Picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def take_load_table(report: Path, browser: "Browser") -> bytes:
    """The load test's tables: how many requests, and how long they took."""
    with open_page(browser) as page:
        page.goto(report.as_uri())
        return photograph_part(page, page.locator("table").nth(1))


def take_load_charts(report: Path, browser: "Browser") -> bytes:
    """The load test's charts."""
    with open_page(browser) as page:
        page.goto(report.as_uri())
        charts = page.locator("canvas")
        charts.nth(2).wait_for()
        return photograph_part(page, charts.nth(2), page.get_by_role("heading", name="Charts"))


def take_page(folder: Path, browser: "Browser") -> bytes:
    """The upper part of monitoring's page: the alarm and the first pictures."""
    with open_page(browser) as page:
        page.goto((folder / "index.html").as_uri())
        return photograph_part(page, page.locator("#quality"))


def take_drift(folder: Path, browser: "Browser") -> bytes:
    """Evidently's verdict on the columns of the newest window."""
    with open_page(browser) as page:
        page.goto(find_report(folder).as_uri())
        rows = page.locator("tbody tr[index]")
        rows.nth(4).wait_for()
        return photograph_part(page, rows.nth(4), margin=0)


def take_distribution(folder: Path, browser: "Browser") -> bytes:
    """One column's distribution beside what the champion learned from."""
    from images.stage import VINTAGE

    with open_page(browser) as page:
        page.goto(find_report(folder).as_uri())
        row = page.locator("tbody tr[index]", has_text=VINTAGE.feature).first
        row.get_by_role("button").click()
        page.get_by_role("tab", name="Data distribution").click()
        detail = row.locator("xpath=following-sibling::tr").first
        detail.locator(".js-plotly-plot").first.wait_for()
        return photograph_part(page, detail, row, margin=0)


def find_report(folder: Path) -> Path:
    """Evidently's page on the inputs of the newest window."""
    return max(folder.glob("*/inputs.html"))


MONITORING_PICTURES = (
    Picture("monitoring", lambda stage, browser: take_page(stage.monitoring, browser), MEASURED),
    Picture("evidently_drift", lambda stage, browser: take_drift(stage.monitoring, browser)),
    Picture("evidently_distribution", lambda stage, browser: take_distribution(stage.monitoring, browser)),
    Picture("locust_table", lambda stage, browser: take_load_table(stage.load, browser), MEASURED),
    Picture("locust_charts", lambda stage, browser: take_load_charts(stage.load, browser), MEASURED),
)
