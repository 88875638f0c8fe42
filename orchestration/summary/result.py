"""The result of a pipeline run, as the command prints it: a summary of three lines, the table, the gate."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from experiment_tracking.registry.gate import Verdict
from experiment_tracking.registry.versions import MODEL, Version
from wine_data.schema import ROW, ROWS
from wine_quality_training.evaluate import Score
from wine_quality_training.report.tables import tabulate_scores

PROMOTE = 'python -m experiment_tracking.registry promote --reason "…"'
SAME = 5e-5  # two scores of one model: the registry keeps four digits


@dataclass(frozen=True)
class Release:
    """The result for a challenger; `verdict` is None if it already is the champion."""

    verdict: Verdict | None
    champion: Version | None
    true_grade: int  # of the wine sent to the API
    answer: dict[str, Any]


@dataclass(frozen=True)
class PipelineResult:
    """The result of a pipeline run."""

    source: str
    fingerprint: str
    note: str
    scores: list[Score]
    release: Release


def show_result(result: PipelineResult, console: Console) -> None:
    """Print a summary of three lines, then the table, the result and what to do next."""
    release, champion = result.release, result.release.champion
    console.print("\n".join(summarise_result(result)))
    console.print(*tabulate_scores(result.scores), sep="\n")
    note = f"\n            {result.note}" if result.note else ""
    probabilities = ", ".join(f"{grade}: {p:.2f}" for grade, p in release.answer["probabilities"].items())
    gate = "\n            ".join(
        release.verdict.sentences() if release.verdict else ["the best model is the champion already"]
    )
    following = [
        "make mlflow                       runs, metrics and the registry in a browser",
        f"make search                       tune XGBoost and forests on the same {ROWS}",
        "WINE_DATA=FOLDER make pipeline    the same on your own files",
    ]
    if not champion:  # the same run would have the same result
        following.append(f"{PROMOTE}    overrules the gate")
    steps = "\n  ".join(following)
    console.print(
        f"""
{ROWS.capitalize():11} {result.source}, fingerprint {result.fingerprint[:12]}{note}
Gate        {gate}
Prediction  grade {release.answer["prediction"]} through the API, for a holdout {ROW} graded {release.true_grade}
            (expected quality {release.answer["expected_quality"]:.2f}; {probabilities})

More
  {steps}"""
    )


def summarise_result(result: PipelineResult) -> list[str]:
    """The serving model, its quality on unseen wines, and what to do next: one line each."""
    champion = result.release.champion
    if not champion:
        refused = "Serves      no model yet: the gate refused the first challenger"
        return [refused, "Unseen      the gate's figures are below the table", "Next        see the last line"]
    right = [
        f"right about {score.metrics['accuracy']:.0%}, "
        for score in result.scores
        if (score.model, score.scored_on) == (champion.model, "holdout")
        and abs(score.metrics["kappa"] - champion.kappa_holdout) <= SAME  # an older champion has other scores
    ]
    return [
        f"Serves      {MODEL} version {champion.number}, {champion.model}",
        f"Unseen      {''.join(right)}kappa {champion.kappa_holdout:.3f} on {ROWS} kept out of training "
        "(0: chance, 1: perfect)",
        "Next        make serve starts the API; open http://127.0.0.1:8000",
    ]
