"""The list of pictures, and how to take each."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from images.browser import photograph
from wine_data.schema import EXAMPLE
from wine_quality_training.models import ALL_MODELS

if TYPE_CHECKING:  # the command's help lists the pictures without a browser and servers
    from playwright.sync_api import Page

    from images.stage import Stage

# Not the default wine of the form: the model was trained on that one, and is very confident.
WINE = EXAMPLE | {"alcohol": 11.2, "residual_sugar": 5.1, "density": 0.9945}
ONLY_THE_ANSWER = """
.responses-table:not(.live-responses-table), .responses-inner > div > h4, .opblock-description-wrapper,
.parameters-container { display: none }
"""
NO_ASSISTANT = "[data-assistant-ui] { display: none !important }"
# Each chart's legend shows only two of the runs; the list beside the charts has the colours of all.
NO_LEGEND = '[data-testid="experiment-view-compare-runs-card"] > div:last-child > div:last-child { visibility: hidden }'
NO_TIMELINE = ".flow-run-graphs { display: none }"
READABLE_TAGS = ".deployment-schedule-tags__tag { color: white !important }"  # else it is black on dark grey
COLUMNS = ("as-published.validation.accuracy", "leak-free.cv.accuracy", "leak-free.cv.kappa", "loss")
COMPARED = r"(validation|cv)\.(accuracy|kappa|r2)"  # three measures under each protocol
PARENTS = ("pipeline", "search", "autolog against by hand")
LINE = """() => {
  const parts = [...document.querySelectorAll("div")];
  const line = parts.find((part) => getComputedStyle(part).cursor === "ew-resize" && part.clientHeight > 300);
  const box = line.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + 40];  // not on the button in its middle
}"""
COMPLETED = 2  # the third of the dashboard's tabs, by state


@dataclass(frozen=True)
class Picture:
    """A picture: images/NAME.png, a screenshot of a page of this size in CSS pixels."""

    name: str
    take: "Callable[[Stage, Page], bytes]"
    width: int = 1280
    height: int = 800


def take_form(address: str, page: "Page") -> bytes:
    """The form of the API after a wine was graded."""
    from playwright.sync_api import expect

    page.goto(f"{address}/")
    for name in ("alcohol", "residual_sugar", "density"):
        page.locator(f"#{name}").fill(f"{WINE[name]:g}")
    page.get_by_role("button", name="Predict the grade").click()
    expect(page.get_by_role("status")).to_contain_text("Grade ")
    return photograph(page, last=page.locator("body"))


def take_docs(address: str, page: "Page") -> bytes:
    """The list of routes at /docs."""
    page.goto(f"{address}/docs")
    page.get_by_text("/metrics").first.wait_for()
    return photograph(page, last=page.locator(".opblock").last)


def take_answer(address: str, page: "Page") -> bytes:
    """A request sent from /docs, and its response."""
    page.goto(f"{address}/docs")
    page.locator(".opblock", has_text="/predict").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.locator("textarea").fill(json.dumps(WINE, indent=1))
    page.get_by_role("button", name="Execute").click()
    page.locator(".live-responses-table").wait_for()
    page.add_style_tag(content=ONLY_THE_ANSWER)
    part = page.locator(".opblock.is-open")
    return photograph(page, part, part)


def take_load_table(report: Path, page: "Page") -> bytes:
    """The load test's tables: numbers of requests and response times."""
    page.goto(report.as_uri())
    return photograph(page, last=page.locator("table").nth(1))


def take_load_charts(report: Path, page: "Page") -> bytes:
    """The load test's charts."""
    page.goto(report.as_uri())
    last = page.locator("canvas").nth(2)
    last.wait_for()
    return photograph(page, page.get_by_role("heading", name="Charts"), last)


def take_monitoring(folder: Path, page: "Page") -> bytes:
    """The upper part of monitoring's page: the alarm and the first pictures."""
    page.goto((folder / "index.html").as_uri())
    return photograph(page, last=page.locator("#quality"))


def take_drift(folder: Path, page: "Page") -> bytes:
    """Evidently's verdict on the columns of the newest window."""
    page.goto(max(folder.glob("*/inputs.html")).as_uri())
    row = page.locator("tbody tr[index]").nth(4)
    row.wait_for()
    return photograph(page, last=row)


def take_distribution(folder: Path, page: "Page") -> bytes:
    """The distribution of the drifted column beside the champion's reference."""
    from images.stage import VINTAGE

    page.goto(max(folder.glob("*/inputs.html")).as_uri())
    row = page.locator("tbody tr[index]", has_text=VINTAGE.feature).first
    row.get_by_role("button").click()
    page.get_by_role("tab", name="Data distribution").click()
    detail = row.locator("xpath=following-sibling::tr").first
    detail.locator(".js-plotly-plot").first.wait_for()
    detail.locator(".updatemenu-button", has_text="perc").click()  # in percent: the two sizes differ
    return photograph(page, row, detail)


def take_runs(stage: "Stage", page: "Page") -> bytes:
    """MLflow's table of runs: the pipeline's with one nested run per model, a search with its trials."""
    open_mlflow(stage, page, f"/experiments/{stage.runs}/runs?")
    page.locator("a", has_text="ExtraTrees").first.wait_for()
    for column in ("attributes.`Run Name`", *(f"metrics.`{name}`" for name in COLUMNS)):
        page.locator(f'[col-id="{column}"] .ag-header-cell-resize').first.dblclick()  # fits the width to the content
    return photograph(page)


def take_run(stage: "Stage", page: "Page") -> bytes:
    """The run of the model that became champion."""
    open_mlflow(stage, page, f"/experiments/{stage.runs}/runs/{stage.find_run('OrdinalForestClassifier')}?")
    return photograph_with(page, "leak-free.cv.kappa")


def take_comparison(stage: "Stage", page: "Page") -> bytes:
    """The models beside each other, by their scores as published and leak-free."""
    open_mlflow(stage, page, f"/experiments/{stage.runs}/runs?compareRunsMode=CHART&", PARENTS[:1])
    page.get_by_label("Toggle sidebar").click()
    page.get_by_placeholder("Search metric charts").fill(COMPARED)
    page.get_by_text("leak-free.cv.r2").first.wait_for()
    page.locator(".js-plotly-plot .bars path").first.wait_for()
    x, y = page.evaluate(LINE)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 70, y, steps=5)  # makes room for the names of the runs
    page.mouse.up()
    page.mouse.move(0, 0)
    page.add_style_tag(content=NO_LEGEND)
    return photograph(page)


def take_autolog(stage: "Stage", page: "Page") -> bytes:
    """One run logged twice: by hand and with autolog."""
    from experiment_tracking.runs.autolog import AUTOLOG, BY_HAND

    experiment_id = stage.runs
    ids = ",".join(f'"{stage.find_run(name)}"' for name in (BY_HAND, AUTOLOG))
    open_mlflow(stage, page, f'/compare-runs?runs=[{ids}]&experiments=["{experiment_id}"]&')
    page.get_by_text("best_iteration").first.wait_for()
    page.get_by_text("Visualizations", exact=True).first.click()
    return photograph(page)


def take_registry(stage: "Stage", page: "Page") -> bytes:
    """The versions with their aliases."""
    open_mlflow(stage, page, "/models/wine-quality?")
    return photograph_with(page, "@ champion")


def take_home(stage: "Stage", page: "Page") -> bytes:
    """Prefect's dashboard, with the runs that completed."""
    assert stage.monitoring
    open_prefect(stage, page, "/dashboard")
    page.get_by_text("Hide subflows").click()
    page.locator(".p-tab").nth(COMPLETED).click()
    page.get_by_text("wine-quality-monitoring").first.wait_for()
    page.get_by_text("wine-pool").first.wait_for()
    return photograph(page)


def take_timeline(stage: "Stage", page: "Page") -> bytes:
    """The pipeline's run: its parts in order of execution."""
    open_prefect(stage, page, f"/runs/flow-run/{stage.training}")
    page.get_by_text("Completed").first.wait_for()
    page.wait_for_timeout(3_000)  # it is drawn on a canvas, which has no elements to wait for
    return photograph(page)


def take_logs(stage: "Stage", page: "Page") -> bytes:
    """The log of its comparison of models."""
    open_prefect(stage, page, f"/runs/flow-run/{stage.find_flow_run('wine-quality-comparison')}?tab=Logs")
    return photograph_with(page, f"Model 1 of {len(ALL_MODELS)}", NO_TIMELINE)


def take_artifacts(stage: "Stage", page: "Page") -> bytes:
    """An artifact of that run: the audit of the wines."""
    assert stage.training
    open_prefect(stage, page, "/artifacts/key/audit")
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    return photograph_with(page, "Show raw data")


def take_pool(stage: "Stage", page: "Page") -> bytes:
    """The work pool with its worker."""
    open_prefect(stage, page, "/work-pools/work-pool/wine-pool?tab=Workers")
    return photograph_with(page, "wine-worker")


def take_schedules(stage: "Stage", page: "Page") -> bytes:
    """The deployments with their schedules."""
    assert stage.monitoring
    open_prefect(stage, page, "/deployments")
    return photograph_with(page, "Hourly", READABLE_TAGS)


def photograph_with(page: "Page", text: str, style: str = "") -> bytes:
    """A PNG of the window with extra style, once it shows a text."""
    page.get_by_text(text).first.wait_for()
    if style:
        page.add_style_tag(content=style)
    return photograph(page)


def open_prefect(stage: "Stage", page: "Page", path: str) -> None:
    """Open a page of the server in its light theme."""
    page.add_init_script("localStorage.setItem('color-scheme', '\"light\"')")
    page.goto(f"{stage.prefect}{path}")


def open_mlflow(stage: "Stage", page: "Page", path: str, expanded: tuple[str, ...] = PARENTS) -> None:
    """Open a page of the server, with the sections for training, without the assistant.

    MLflow stores a user's choices in the browser; `expanded` are the parent runs whose nested runs are shown.
    """
    experiment_id = stage.runs
    table = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "searchFilter": "",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "autoRefreshEnabled": False,
        "selectedColumns": [f"metrics.`{name}`" for name in COLUMNS],
        "runsExpanded": {stage.find_run(name): True for name in expanded},
        "runsPinned": [],
        "runsHidden": [],
        "groupBy": None,
        "groupsExpanded": {},
    }
    place = "MLflowLocalStorage-1.1-Experiment"
    kept = {
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
        "mlflow.assistant.panelOpen_v1": "false",
        "databricks-dark-mode-pref": "light",
        f"{place}View-{experiment_id}-expandRows": "true",
        f'{place}Page-["{experiment_id}"]-ReactComponentState': json.dumps(table),
    }
    page.add_init_script(f"for (const [k, v] of Object.entries({json.dumps(kept)})) localStorage.setItem(k, v)")
    page.goto(f"{stage.mlflow}/#{path}workflowType=machine_learning")
    page.add_style_tag(content=NO_ASSISTANT)


# Monitoring before the API's own pictures, whose requests would be in its windows too.
PICTURES = (
    Picture("heatmap", lambda stage, _: (stage.figures / "correlations.png").read_bytes()),
    Picture("protocols", lambda stage, _: (stage.figures / "protocols.png").read_bytes()),
    Picture("drill", lambda stage, _: stage.drill.read_bytes()),
    Picture("monitoring", lambda stage, page: take_monitoring(stage.monitoring, page)),
    Picture("evidently_drift", lambda stage, page: take_drift(stage.monitoring, page)),
    Picture("evidently_distribution", lambda stage, page: take_distribution(stage.monitoring, page)),
    Picture("locust_table", lambda stage, page: take_load_table(stage.load, page)),
    Picture("locust_charts", lambda stage, page: take_load_charts(stage.load, page)),
    Picture("api_page", lambda stage, page: take_form(stage.api, page)),
    Picture("api_docs", lambda stage, page: take_docs(stage.api, page)),
    Picture("api_answer", lambda stage, page: take_answer(stage.api, page)),
    Picture("mlflow_runs", take_runs, 1600, 960),
    Picture("mlflow_run", take_run, height=1_100),
    Picture("mlflow_comparison", take_comparison, 1600, 1_010),
    Picture("mlflow_autolog", take_autolog, height=1_430),
    Picture("mlflow_registry", take_registry, 1760, 1_000),
    Picture("prefect_home", take_home),
    Picture("prefect_timeline", take_timeline, 1600, 500),
    Picture("prefect_logs", take_logs, height=900),
    Picture("prefect_artifacts", take_artifacts, height=500),
    Picture("prefect_work_pool", take_pool, height=500),
    Picture("prefect_schedules", take_schedules, 1600, 500),
)
