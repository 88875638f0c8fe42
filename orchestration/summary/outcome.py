"""Read the results of the last pipeline run from the store, and summarise them in Markdown."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import Run, ViewType

from commands import NotThereError
from experiment_tracking.registry.promotion import Record, list_records
from experiment_tracking.registry.versions import MODEL, Version, find_champion
from experiment_tracking.runs.store import EXPERIMENT, find_experiment, name_store, open_store
from experiment_tracking.runs.tracking import CARD
from orchestration.tasks.steps import audit_snapshot
from settings import Settings
from wine_data.schema import ROWS
from wine_quality_training.report.tables import MEANING

NO_REGISTRY = "there was no earlier registry, so the gate had no champion to compare with"
SYNTHETIC = f"the {ROWS} are synthetic, so the scores say that the pipeline works and nothing about real {ROWS}"


@dataclass(frozen=True)
class Outcome:
    """The results of the last pipeline run. `record` is None if it neither promoted nor refused a model."""

    source: str
    fingerprint: str
    commit: str
    runs: dict[str, str]  # of each model
    scores: str
    record: Record | None
    champion: Version | None
    rehearsals: tuple[str, ...]


def read_outcome() -> Outcome:
    """Read the results of the last run from the open store. Raises NotThereError if no run has finished."""
    runs = _find_pipelines()
    if not runs:
        raise NotThereError(f"no pipeline has finished in {name_store()}: run make pipeline")
    run, tags = runs[0], runs[0].data.tags
    records = [record for record in list_records() if record.when.timestamp() * 1000 >= run.info.start_time]
    source = tags["data.source"]
    rehearsals = [NO_REGISTRY] * (len(runs) == 1) + [SYNTHETIC] * source.startswith("twin")
    return Outcome(
        source=source,
        fingerprint=tags["data.fingerprint"],
        commit=tags["mlflow.source.git.commit"],
        runs={name.removeprefix("run."): run_id for name, run_id in tags.items() if name.startswith("run.")},
        scores=Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/scores.md")).read_text(),
        record=records[-1] if records else None,
        champion=find_champion(),
        rehearsals=tuple(rehearsals),
    )


def render_summary(outcome: Outcome, findings: list[str]) -> str:
    """The summary in Markdown; its title says "rehearsal" if the run proves nothing."""
    champion = outcome.champion
    parts = [
        "# Training: a rehearsal" if outcome.rehearsals else "# Training",
        "\n".join(f"- Rehearsal: {why}." for why in outcome.rehearsals),
        f"{ROWS.capitalize()}: {outcome.source}, fingerprint {outcome.fingerprint[:12]}. "
        f"Commit: {outcome.commit[:12]}.",
        "## Gate",
        "\n".join(f"- {sentence}" for sentence in _describe_gate(outcome.record)),
        f"Champion: {MODEL} version {champion.number}, {champion.model}." if champion else "There is no champion.",
        "## Scores under both protocols",
        "\n".join(f"- {protocol}: {meaning}" for protocol, meaning in MEANING.items()),
        outcome.scores,
        f"## Audit of the {ROWS}",
        "\n".join(f"- {finding}" for finding in findings) or "Nothing was found.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summarise(settings: Settings, folder: Path | None) -> str:
    """Summarise the last run in the settings' store; write summary, figures and model cards to a folder, if given."""
    open_store(settings.mlflow_uri, settings.mlflow_artifacts)
    outcome = read_outcome()
    summary = render_summary(outcome, audit_snapshot(outcome.fingerprint, settings.snapshots))
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.md").write_text(summary)
        if settings.audit_figure.is_file():
            shutil.copy(settings.audit_figure, folder / "audit.png")
        for name, run_id in outcome.runs.items():
            for artifact in ("figures", CARD):
                mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{artifact}", dst_path=str(folder / name))
    return summary


def _find_pipelines() -> list[Run]:
    """The last two finished parent runs of pipelines, newest first; the second shows that there were others."""
    condition = "attributes.status = 'FINISHED' and attributes.run_name = 'pipeline'"
    experiment = find_experiment(EXPERIMENT).experiment_id
    return list(
        mlflow.MlflowClient().search_runs(
            [experiment], condition, ViewType.ACTIVE_ONLY, 2, ["attributes.start_time DESC"]
        )
    )


def _describe_gate(record: Record | None) -> list[str]:
    if record is None:
        return ["The best model is the champion already."]
    before = f"after version {record.champion}" if record.champion else "the first"
    return [f"{record.event.capitalize()} of version {record.version}, {before}."] + [
        f"{sentence}." for sentence in record.verdict.split("; ") if sentence
    ]
