"""Fit the models and compare them under both protocols.

python -m wine_quality_training.train [--model NAME|all] [--protocol as-published|leak-free|both]
"""

import argparse
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from commands import DONE, run_command
from settings import load_settings
from wine_data.sources import WineData, load_wines
from wine_data.split import Sides, split_wines
from wine_quality_training.evaluate import (
    AS_PUBLISHED,
    LEAK_FREE,
    PROTOCOLS,
    SCORED_ON,
    Evaluation,
    Score,
    evaluate_as_published,
    evaluate_leak_free,
)
from wine_quality_training.models import MODELS

MEASURES = ("RMSE", "MAE", "R2", "accuracy", "within 1", "kappa")  # the order of Score.metrics()
MEANING = {
    AS_PUBLISHED: "the same wines on both sides, so this is memory",
    LEAK_FREE: "no wine on both sides, so this is what to expect",
}


def train_model(
    name: str,
    data: WineData,
    sides: Sides,
    seed: int,
    protocols: Sequence[str] = PROTOCOLS,
    on_step: Callable[[str], None] = lambda step: None,
) -> list[Evaluation]:
    """Fit and score one model under each protocol asked for; `on_step` is told of every fit that is done."""
    evaluations = []
    if AS_PUBLISHED in protocols:
        evaluations.append(evaluate_as_published(name, data, seed))
        on_step(f"{name}: {AS_PUBLISHED}")
    if LEAK_FREE in protocols:
        folds = len(sides.folds)
        evaluations.append(
            evaluate_leak_free(
                name, sides, seed, on_fold=lambda fold: on_step(f"{name}: {LEAK_FREE}, fold {fold} of {folds}")
            )
        )
    return evaluations


def list_scores(evaluations: Sequence[Evaluation]) -> list[Score]:
    """All scores: those of one protocol together, and in it those on the same wines."""
    scores = [score for evaluation in evaluations for score in evaluation.scores]
    return sorted(scores, key=lambda score: (PROTOCOLS.index(score.protocol), SCORED_ON.index(score.scored_on)))


def tabulate_scores(scores: Sequence[Score]) -> list[Table]:
    """The two-protocol table for a terminal of 80 columns: one block a protocol."""
    tables = []
    for protocol in dict.fromkeys(score.protocol for score in scores):
        table = Table(
            "model", "scored on", box=None, pad_edge=False, padding=(0, 1, 0, 0),
            title=f"\n{protocol}: {MEANING[protocol]}", title_justify="left",
        )  # fmt: skip
        for measure in MEASURES:
            table.add_column(measure, justify="right")
        for score in scores:
            if score.protocol == protocol:
                table.add_row(score.model, score.scored_on, *_format_metrics(score))
        tables.append(table)
    return tables


def render_markdown(scores: Sequence[Score]) -> str:
    """The two-protocol table in Markdown."""
    rows = [
        ("model", "protocol", "scored on", "wines", *MEASURES),
        ("---",) * 3 + ("---:",) * (1 + len(MEASURES)),
        *((s.model, s.protocol, s.scored_on, f"{s.wines:,}", *_format_metrics(s)) for s in scores),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _format_metrics(score: Score) -> tuple[str, ...]:
    return tuple(f"{value:.4f}" for value in score.metrics().values())


def main() -> int:
    """Train, show progress, print the table."""
    parser = argparse.ArgumentParser(description="Fit the models and compare them under both protocols.")
    parser.add_argument("--model", default="all", choices=[*MODELS, "all"])
    parser.add_argument("--protocol", default="both", choices=[*PROTOCOLS, "both"])
    arguments = parser.parse_args()
    settings = load_settings()
    names = list(MODELS) if arguments.model == "all" else [arguments.model]
    protocols = PROTOCOLS if arguments.protocol == "both" else (arguments.protocol,)
    console = Console()
    data = load_wines(settings.data, settings.seed, settings.downloads, settings.uci_url)
    sides = split_wines(data.train, data.validation, settings.folds, settings.seed)
    console.print(data.introduce())
    steps = len(names) * ((AS_PUBLISHED in protocols) + settings.folds * (LEAK_FREE in protocols))
    evaluations = []
    with Progress(console=console) as progress:
        bar = progress.add_task("Fitting", total=steps)
        for name in names:
            evaluations += train_model(
                name, data, sides, settings.seed, protocols,
                on_step=lambda step: progress.update(bar, advance=1, description=step),
            )  # fmt: skip
    console.print(*tabulate_scores(list_scores(evaluations)), sep="\n")
    console.print("Next: make pipeline tracks, registers and bundles the best of them")
    return DONE


if __name__ == "__main__":
    run_command(main)
