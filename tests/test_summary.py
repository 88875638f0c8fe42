"""What a finished pipeline came to, in Markdown."""

from pathlib import Path

from tests.conftest import PipelineRun, isolated_environment, run_here
from tests.told import assert_told
from wine_data.audit.checks import audit_wines


def test_a_summary_labels_both_protocols_and_has_wines_gate_and_audit(
    pipeline_run: PipelineRun, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n")
    environment = pipeline_run.environment | {"GITHUB_STEP_SUMMARY": str(page)}
    done = run_here("orchestration.summary", environment, "--folder", str(tmp_path / "report"))
    assert done.returncode == 0, done.stderr
    summary = page.read_text()
    assert summary.startswith("before\n# Training")
    data = pipeline_run.load_data()
    protocols = ["| as-published | validation |", "| leak-free | cv |", "| leak-free | holdout |"]
    facts = [*protocols, data.fingerprint[:12], "Champion: wine-quality version 1", *audit_wines(data).sentences()]
    assert [fact for fact in facts if fact not in summary] == []
    assert ("synthetic" in summary) == (pipeline_run.environment["WINE_DATA"] == "twin")
    assert f"before\n{(tmp_path / 'report' / 'summary.md').read_text()}" == summary
    assert list((tmp_path / "report").glob("*/figures/*.png"))


def test_without_a_pipeline_there_is_nothing_to_summarise(tmp_path: Path) -> None:
    done = run_here("orchestration.summary", isolated_environment(tmp_path))
    assert_told(done, 3, "make pipeline")
