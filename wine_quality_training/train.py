"""Fit the models and compare them under both protocols.

    python -m wine_quality_training.train [--model NAME|all] [--protocol as-published|leak-free|both]

Leaves in wine_quality_training/models/ each model (rfr.pkl) with its facts beside it (rfr.json), the
comparison as scores.md and scores.json, and figures/.
"""

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from commands import DONE, run_command
from executors import Spread, is_local, open_executor, spread_over
from settings import Settings, load_settings
from wine_data.sources import WineData, load_wines
from wine_data.split import Sides, split_wines
from wine_quality_training.bundle import write_candidate
from wine_quality_training.evaluate import (
    AS_PUBLISHED,
    LEAK_FREE,
    PROTOCOLS,
    Evaluation,
    evaluate_as_published,
    evaluate_leak_free,
)
from wine_quality_training.figures import draw_comparison
from wine_quality_training.model_facts import describe_model
from wine_quality_training.models import MODELS, make_model, shorten_name
from wine_quality_training.report import dump_report, list_scores, render_report, tabulate_scores


def train_model(
    name: str,
    data: WineData,
    sides: Sides,
    seed: int,
    protocols: Sequence[str] = PROTOCOLS,
    on_step: Callable[[str], None] = lambda step: None,
    spread: Spread = map,
) -> list[Evaluation]:
    """Fit and score one model under each protocol asked for; `on_step` is told of every fit that is done.

    `spread` runs the fits, here or elsewhere.
    """
    evaluations = []
    if AS_PUBLISHED in protocols:
        evaluations.append(evaluate_as_published(name, make_model(name, seed), data, spread))
        on_step(f"{name}: {AS_PUBLISHED}")
    if LEAK_FREE in protocols:
        folds = len(sides.folds)
        evaluations.append(
            evaluate_leak_free(
                name,
                make_model(name, seed),
                sides,
                on_fold=lambda fold: on_step(f"{name}: {LEAK_FREE}, fold {fold} of {folds}"),
                spread=spread,
            )
        )
    return evaluations


def write_candidates(folder: Path, evaluations: Sequence[Evaluation], data: WineData, sides: Sides) -> list[Path]:
    """Write one pickle a model with its facts: the leak-free fit, or the published one where there is no other."""
    chosen = {evaluation.name: evaluation for evaluation in evaluations}  # the leak-free one comes last
    paths = []
    for name, evaluation in chosen.items():
        fitted_on = sides.training if evaluation.protocol == LEAK_FREE else data.train
        facts = describe_model(evaluation, data, fitted_on)
        paths.append(write_candidate(folder, shorten_name(name), evaluation.pipeline, facts))
    return paths


def write_report(folder: Path, evaluations: Sequence[Evaluation], data: WineData, sides: Sides) -> list[Path]:
    """Write scores.md, scores.json and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures").mkdir(exist_ok=True)
    texts = {"scores.md": render_report(data, evaluations), "scores.json": dump_report(data, evaluations)}
    for name, text in texts.items():
        partial = folder / f".{name}.partial"
        partial.write_text(text)
        partial.replace(folder / name)
    for name, figure in draw_comparison(evaluations, sides).items():
        figure.savefig(folder / "figures" / f"{name}.png")
    return [folder / name for name in texts] + [folder / "figures"]


def main() -> int:
    """Train, show progress, print the table, write everything."""
    parser = argparse.ArgumentParser(description="Fit the models and compare them under both protocols.")
    parser.add_argument("--model", default="all", choices=[*MODELS, "all"])
    parser.add_argument("--protocol", default="both", choices=[*PROTOCOLS, "both"])
    arguments = parser.parse_args()
    settings = load_settings()
    names = list(MODELS) if arguments.model == "all" else [arguments.model]
    protocols = PROTOCOLS if arguments.protocol == "both" else (arguments.protocol,)
    console = Console(highlight=False, soft_wrap=True)
    data = load_wines(settings.data, settings.seed, settings.downloads, settings.uci_url)
    sides = split_wines(data.train, data.validation, settings.folds, settings.seed)
    console.print(data.introduce())
    evaluations = _train_all(names, data, sides, settings, protocols, console)
    console.print(*tabulate_scores(list_scores(evaluations)), sep="\n")
    with console.status("Drawing the figures"):
        written = write_report(settings.training_models, evaluations, data, sides)
    written = write_candidates(settings.training_models, evaluations, data, sides) + written
    console.print(f"\nWritten to {settings.training_models}: {', '.join(path.name for path in written)}")
    console.print("Next: make pipeline tracks, registers and bundles the best of them")
    return DONE


def _train_all(
    names: Sequence[str],
    data: WineData,
    sides: Sides,
    settings: Settings,
    protocols: Sequence[str],
    console: Console,
) -> list[Evaluation]:
    steps = len(names) * ((AS_PUBLISHED in protocols) + settings.folds * (LEAK_FREE in protocols))
    with (
        open_executor(1, settings.dask) as executor,
        ThreadPoolExecutor(len(names)) as waiting,  # for a cluster, which gets the fits of all models at once
        Progress(console=console) as progress,
    ):
        bar = progress.add_task("Fitting", total=steps)

        def train(name: str) -> list[Evaluation]:
            return train_model(
                name, data, sides, settings.seed, protocols,
                on_step=lambda step: progress.update(bar, advance=1, description=step),
                spread=spread_over(executor),
            )  # fmt: skip

        trained = map(train, names) if is_local(executor) else waiting.map(train, names)
        return [evaluation for evaluations in trained for evaluation in evaluations]


if __name__ == "__main__":
    run_command(main)
