"""Pictures of Prefect's pages: what ran, when, on which worker, and what it left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from images.browser import VIEW, open_page, photograph
from images.picture import MEASURED, Picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from images.stage import Stage

LIGHT = "localStorage.setItem('color-scheme', '\"light\"')"
COMPLETED = 2  # the third of the dashboard's tabs, by state
NO_TIMELINE = ".flow-run-graphs { display: none }"
SCHEDULES = ".deployment-schedule-tags__tag { color: white !important }"  # it is black on dark grey, else
COMPARISON = "wine-quality-comparison"


def take_home(stage: "Stage", browser: "Browser") -> bytes:
    """The dashboard, with the runs that completed."""
    assert stage.monitoring
    with open_prefect(stage, browser, "/dashboard") as page:
        page.get_by_text("Hide subflows").click()
        page.locator(".p-tab").nth(COMPLETED).click()
        page.get_by_text("wine-quality-monitoring").first.wait_for()
        page.get_by_text("wine-pool").first.wait_for()
        return photograph(page)


def take_timeline(stage: "Stage", browser: "Browser") -> bytes:
    """The pipeline's run: its parts in the order in which they ran."""
    with open_prefect(stage, browser, f"/runs/flow-run/{stage.training}", height=500, width=1600) as page:
        page.get_by_text("Completed").first.wait_for()
        page.wait_for_timeout(3_000)  # drawn on a canvas, which nothing tells of
        return photograph(page)


def take_logs(stage: "Stage", browser: "Browser") -> bytes:
    """What the comparison of models logged."""
    with open_prefect(stage, browser, f"/runs/flow-run/{find_part(stage)}?tab=Logs", height=900) as page:
        page.get_by_text("Model 1 of 5").first.wait_for()
        page.add_style_tag(content=NO_TIMELINE)
        return photograph(page)


def take_artifacts(stage: "Stage", browser: "Browser") -> bytes:
    """An artifact of that run: what is wrong with the wines."""
    with open_prefect(stage, browser, "/artifacts/key/audit", height=500) as page:
        page.locator("a[href*='/artifacts/artifact/']").first.click()
        page.get_by_text("Show raw data").wait_for()
        return photograph(page)


def take_pool(stage: "Stage", browser: "Browser") -> bytes:
    """The work pool with its worker."""
    with open_prefect(stage, browser, "/work-pools/work-pool/wine-pool?tab=Workers", height=500) as page:
        page.get_by_text("wine-worker").first.wait_for()
        return photograph(page)


def take_schedules(stage: "Stage", browser: "Browser") -> bytes:
    """The deployments with their schedules."""
    assert stage.monitoring
    with open_prefect(stage, browser, "/deployments", height=500, width=1600) as page:
        page.get_by_text("Hourly").first.wait_for()
        page.add_style_tag(content=SCHEDULES)
        return photograph(page)


@contextmanager
def open_prefect(
    stage: "Stage", browser: "Browser", path: str, height: int = 800, width: int = VIEW
) -> "Iterator[Page]":
    """A page of the server, light."""
    with open_page(browser, height, width) as page:
        page.add_init_script(LIGHT)
        page.goto(f"{stage.prefect}{path}")
        yield page


def find_part(stage: "Stage") -> str:
    """The id of the comparison that the pipeline's run made."""
    import httpx

    asked = {"flows": {"name": {"any_": [COMPARISON]}}, "sort": "START_TIME_ASC", "limit": 1}
    answer = httpx.post(f"{stage.prefect}/api/flow_runs/filter", json=asked, timeout=60)
    return str(answer.raise_for_status().json()[0]["id"])


PREFECT_PICTURES = (
    Picture("prefect_home", take_home),
    Picture("prefect_timeline", take_timeline, MEASURED),
    Picture("prefect_logs", take_logs),
    Picture("prefect_artifacts", take_artifacts),
    Picture("prefect_work_pool", take_pool),
    Picture("prefect_schedules", take_schedules),
)
