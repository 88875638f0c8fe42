"""Pictures of MLflow's pages: runs, one run, two ways to compare, and the registry."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from images.browser import VIEW, open_page, photograph
from images.picture import MEASURED, Picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from images.stage import Stage

COLUMNS = ("as-published.validation.accuracy", "leak-free.cv.accuracy", "leak-free.cv.kappa", "loss")
COMPARED = r"(validation|cv)\.(accuracy|kappa|r2)"  # three measures under each protocol
CHAMPION_MODEL = "ExtraTreesClassifier"
PARENTS = ("pipeline", "search", "autolog against by hand")
TRAINING_SECTIONS = "workflowType=machine_learning"  # those of the sidebar
NAMES_WIDER = 70  # CSS pixels
LINE = """() => [...document.querySelectorAll("div")].find(
  (part) => getComputedStyle(part).cursor === "ew-resize" && part.clientHeight > 300)"""
NO_ASSISTANT = "[data-assistant-ui] { display: none !important }"


def take_runs(stage: "Stage", browser: "Browser") -> bytes:
    """The table of runs: the pipeline's with a nested run a model, a search with its trials."""
    with open_mlflow(stage, browser, f"/experiments/{stage.runs}/runs", (960, 1600)) as page:
        page.locator("a", has_text="ExtraTrees").first.wait_for()
        for column in ("attributes.`Run Name`", *(f"metrics.`{name}`" for name in COLUMNS)):
            page.locator(f'[col-id="{column}"] .ag-header-cell-resize').first.dblclick()  # as wide as what it holds
        return photograph(page)


def take_run(stage: "Stage", browser: "Browser") -> bytes:
    """The run of the model that became champion."""
    path = f"/experiments/{stage.runs}/runs/{stage.find_run(CHAMPION_MODEL)}"
    with open_mlflow(stage, browser, path, (1_100, VIEW)) as page:
        page.get_by_text("leak-free.cv.kappa").first.wait_for()
        return photograph(page)


def take_comparison(stage: "Stage", browser: "Browser") -> bytes:
    """The models beside each other, by what they reach as published and leak-free."""
    path = f"/experiments/{stage.runs}/runs?compareRunsMode=CHART"
    with open_mlflow(stage, browser, path, (1_010, 1600), expanded=PARENTS[:1]) as page:
        page.get_by_label("Toggle sidebar").click()
        page.get_by_placeholder("Search metric charts").fill(COMPARED)
        page.get_by_text("leak-free.cv.r2").first.wait_for()
        page.locator(".js-plotly-plot .bars path").first.wait_for()
        widen_names(page)
        return photograph(page)


def take_autolog(stage: "Stage", browser: "Browser") -> bytes:
    """One run logged twice: by hand and with autolog."""
    from experiment_tracking.runs.autolog import AUTOLOG, BY_HAND

    with open_mlflow(stage, browser, compare_runs(stage, (BY_HAND, AUTOLOG)), (1_430, VIEW)) as page:
        page.get_by_text("best_iteration").first.wait_for()
        close_sections(page, "Visualizations")
        return photograph(page)


def take_registry(stage: "Stage", browser: "Browser") -> bytes:
    """The versions with their aliases."""
    with open_mlflow(stage, browser, "/models/wine-quality", (800, VIEW)) as page:
        page.get_by_text("@ champion").first.wait_for()
        return photograph(page)


def widen_names(page: "Page") -> None:
    """Plot the line between runs and charts to the right, so that the names of the runs can be read."""
    line = page.evaluate_handle(LINE).as_element()
    assert line is not None
    box = line.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + 40  # not on the button in its middle
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + NAMES_WIDER, y, steps=5)
    page.mouse.up()
    page.mouse.move(0, 0)


def close_sections(page: "Page", *names: str) -> None:
    """Fold sections of a comparison."""
    for name in names:
        page.get_by_text(name, exact=True).first.click()


@contextmanager
def open_mlflow(
    stage: "Stage", browser: "Browser", path: str, size: tuple[int, int], expanded: Sequence[str] = PARENTS
) -> "Iterator[Page]":
    """A page of the server, light, with the sections for training and without the assistant."""
    kept = keep_choices(stage, expanded)
    with open_page(browser, *size) as page:
        page.add_init_script(f"for (const [k, v] of Object.entries({json.dumps(kept)})) localStorage.setItem(k, v)")
        page.goto(f"{stage.mlflow}/#{path}{'&' if '?' in path else '?'}{TRAINING_SECTIONS}")
        page.add_style_tag(content=NO_ASSISTANT)
        yield page


def keep_choices(stage: "Stage", expanded: Sequence[str]) -> dict[str, str]:
    """What MLflow keeps of a visitor's choices in the browser; `expanded` are the parent runs with theirs shown."""
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
    return {
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
        "mlflow.assistant.panelOpen_v1": "false",
        "databricks-dark-mode-pref": "light",
        f"{place}View-{stage.runs}-expandRows": "true",
        f'{place}Page-["{stage.runs}"]-ReactComponentState': json.dumps(table),
    }


def compare_runs(stage: "Stage", names: Sequence[str]) -> str:
    """The address of a comparison of runs."""
    assert stage.runs
    ids = ",".join(f'"{stage.find_run(name)}"' for name in names)
    return f'/compare-runs?runs=[{ids}]&experiments=["{stage.runs}"]'


MLFLOW_PICTURES = (
    Picture("mlflow_runs", take_runs),
    Picture("mlflow_run", take_run),
    Picture("mlflow_comparison", take_comparison, MEASURED),  # MLflow colours runs by their ids
    Picture("mlflow_autolog", take_autolog),
    Picture("mlflow_registry", take_registry),
)
