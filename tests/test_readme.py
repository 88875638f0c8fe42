"""What the README claims."""

import re
from pathlib import Path

import pytest

from settings import ROOT, Settings, name_variable
from tests.benchmarks import results
from tests.benchmarks.results import RESULTS, render_number_to_beat, render_result
from tests.folders import PipelineRun
from tests.processes import run_program
from wine_data.schema import BOUNDS, FEATURES, SEEN, WineQuality

README = (ROOT / "README.md").read_text()
DATA_CARD = (ROOT / "wine_data" / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES = {"README.md": README, "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text()} | {
    f"docs/{name}": text for name, text in DOCS.items()
}
ROOMS = ("wine_data", "wine_quality_training", "experiment_tracking", "deployment", "monitoring", "orchestration")
UCI = pytest.param("uci", marks=[pytest.mark.full, pytest.mark.real_data])


def strip_lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("pipeline_run", [UCI], indirect=True)
def test_the_output_shown_is_the_output_printed(pipeline_run: PipelineRun) -> None:
    summary, end, table = (
        strip_lines(part.split("```")[0])
        for text in (README, DOCS["training.md"])
        for part in text.split("```text\n")[1:4]
        if part.startswith(("Serves", "Wines", "as-published"))
    )
    assert [*summary, "", *table, "", *end] == strip_lines(pipeline_run.output)


def test_the_number_to_beat_is_the_measured_one() -> None:
    assert render_number_to_beat() in DOCS["benchmarks.md"]
    assert render_number_to_beat().splitlines()[2] in README  # the best model


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("result", sorted(path.stem for path in RESULTS.glob("*.json")))
def test_a_benchmarks_table_is_the_one_it_wrote(result: str) -> None:
    assert render_result(result) in README + DATA_CARD + DOCS["benchmarks.md"] + DOCS["reliability.md"]


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_to_a_file_and_its_heading(page: str) -> None:
    folder = (ROOT / page).parent
    for path, heading in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", PAGES[page]):
        target = folder / path if path else ROOT / page
        assert target.exists(), path
        assert not heading or heading in list_anchors(target.read_text()), f"{path}#{heading}"


def list_anchors(text: str) -> set[str]:
    """What GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_pages_name_settings_that_there_are() -> None:
    known = {name_variable(name) for name in Settings.model_fields}
    for page, text in PAGES.items():
        named = set(re.findall(r"\bWINE_[A-Z0-9_]+\b", text)) - {"WINE_REAL_DATA"}  # of the tests
        assert named <= known, f"{page}: {named - known}"


def test_the_make_targets_of_the_pages_exist() -> None:
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)\b(?= |`|$)", "\n".join(PAGES.values()), re.MULTILINE))
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def read_tree() -> list[str]:
    """The files and folders of the tree in docs/architecture.md."""
    found, room = [], ""
    for line in DOCS["architecture.md"].split("```text\n")[1].split("```")[0].splitlines():
        indented, names = line.startswith("  "), re.split(r"  +", line.strip())[0].split(", ")
        room = room if indented else names[0]
        found += [f"{room}{name}" if indented else name for name in names]
    return found


@pytest.mark.parametrize("path", [*read_tree(), *re.findall(r"`([a-z_/]+\.(?:py|yaml))`", DOCS["architecture.md"])])
def test_the_architecture_names_files_that_there_are(path: str) -> None:
    assert any((folder / path).exists() for folder in (ROOT, ROOT / "wine_quality_training", ROOT / "orchestration"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_its_notebooks_and_at_most_eight_entries(room: str) -> None:
    entries = {path.split("/")[1] for path in run_program("git", "ls-files", room).stdout.split()} - {"__init__.py"}
    assert len([entry for entry in entries if not entry.endswith(".ipynb")]) <= 8, sorted(entries)


@pytest.mark.parametrize("name", FEATURES)
def test_the_data_card_describes_a_column_as_the_schema_does(name: str) -> None:
    unit = WineQuality.model_fields[name].description
    low, high = BOUNDS[name]
    seen = "{:g} to {:g}".format(*SEEN[name]) if name in SEEN else "0, 1"
    assert f"| `{name}` | {unit} | {low:g} to {high:g} | {seen} |" in DATA_CARD


def test_the_data_card_explains_every_source() -> None:
    assert [source for source in ("auto", "uci", "kaggle", "twin") if f"| `{source}` |" not in DATA_CARD] == []


def test_a_result_that_is_measured_anew_takes_the_place_of_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    page = tmp_path / "docs" / "figures.md"
    page.parent.mkdir()
    (tmp_path / "README.md").touch()
    results.publish_result("speed", "speed", [{"trial": "one", "tries": 1}])
    page.write_text(f"# Figures\n\n{render_result('speed')}\n\nThe end\n")
    results.publish_result("speed", "speed", [{"trial": "one", "tries": 20}])
    assert page.read_text() == f"# Figures\n\n{render_result('speed')}\n\nThe end\n"
    assert "| one | 20 |" in page.read_text()
