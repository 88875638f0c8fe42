"""What the README claims."""

import re

import pytest

from settings import ROOT
from tests.conftest import PipelineRun

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("pipeline_run", ["twin"], indirect=True)
def test_the_output_shown_is_the_output_printed(pipeline_run: PipelineRun) -> None:
    shown = README.split("```text\n")[1].split("```")[0]
    assert strip_lines(shown) == strip_lines(pipeline_run.output)


def strip_lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_a_link_leads_to_a_file(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z-]+)\b(?= |`|$)", README, re.MULTILINE))))
def test_a_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "name", [line.split()[0] for line in README.split("```text\n")[2].split("```")[0].splitlines()]
)
def test_the_layout_is_true(name: str) -> None:
    assert (ROOT / name).exists()
