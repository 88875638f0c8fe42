"""What a finished pipeline came to, in Markdown."""

import subprocess
import sys
from pathlib import Path

from settings import ROOT
from tests.conftest import PipelineRun, isolated_environment


def summarise(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestration.summary", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_summary_labels_both_protocols_and_tells_wines_gate_and_audit(
    pipeline_run: PipelineRun, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n")
    done = summarise(
        pipeline_run.environment | {"GITHUB_STEP_SUMMARY": str(page)}, "--folder", str(tmp_path / "report")
    )
    assert done.returncode == 0, done.stderr
    told = page.read_text()
    assert told.startswith("before\n# Training")
    fingerprint = pipeline_run.load_data().fingerprint[:12]
    wanted = [
        "| as-published | validation |", "| leak-free | cv |", "| leak-free | holdout |", f"fingerprint {fingerprint}",
        "Champion: wine-quality version", "stand in the train file",
    ]  # fmt: skip
    assert [line for line in wanted if line not in told] == []
    assert ("synthetic" in told) == (pipeline_run.environment["WINE_DATA"] == "twin")
    assert f"before\n{(tmp_path / 'report' / 'summary.md').read_text()}" == told
    assert list((tmp_path / "report").glob("*/figures/*.png"))


def test_without_a_pipeline_there_is_nothing_to_summarise(tmp_path: Path) -> None:
    done = summarise(isolated_environment(tmp_path))
    assert done.returncode == 3
    assert "run make pipeline" in done.stderr
    assert "Traceback" not in done.stderr
