"""Fit the models and compare them under both protocols.

    python -m wine_quality_training.train [--model NAME|all] [--protocol as-published|leak-free|both]

It writes to wine_quality_training/models/: each model (rfr.pkl) with its metadata (rfr.json), the comparison as
scores.md and scores.json, and figures/.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from commands import DONE, BadInputError, run_command
from executors import is_local, make_map, open_executor
from settings import Settings, load_settings
from wine_data.sources.load import WineData, load_wines
from wine_quality_training.evaluate import AS_PUBLISHED, LEAK_FREE, PROTOCOLS, Evaluation, Fitting, train_model
from wine_quality_training.models import ALL_MODELS, is_published
from wine_quality_training.report.tables import list_scores, tabulate_scores

if TYPE_CHECKING:
    from wine_data.split import Split


def main() -> int:
    """Train, print the scores and write everything."""
    parser = argparse.ArgumentParser(description="Fit the models and compare them under both protocols.")
    parser.add_argument("--model", default="all", choices=[*ALL_MODELS, "all"], help="the model to fit (all)")
    parser.add_argument("--protocol", default="both", choices=[*PROTOCOLS, "both"], help="how to score (both)")
    arguments = parser.parse_args()
    settings = load_settings()

    from wine_data.split import split_wines

    console = Console(highlight=False, soft_wrap=True)
    data = load_wines(settings.data, settings.seed, settings.downloads, settings.uci_url, settings.wine_type)
    split = split_wines(data.train, data.validation, settings.folds, settings.seed)
    console.print(data.introduce())
    evaluations, written = _train_all(arguments, data, split, settings, console)
    console.print(*tabulate_scores(list_scores(evaluations)), sep="\n")
    with console.status("Drawing the figures"):
        from wine_quality_training.report.files import write_report

        written += write_report(settings.training_models, evaluations, data, split)
    console.print(f"\nWritten to {settings.training_models}: {', '.join(path.name for path in written)}")
    console.print("Next: make pipeline tracks the models, and registers and bundles the best one")
    return DONE


def _train_all(
    arguments: argparse.Namespace, data: WineData, split: "Split", settings: Settings, console: Console
) -> tuple[list[Evaluation], list[Path]]:
    """Train each model, and write it as soon as it is scored; the returned classifiers are unfitted again."""
    from wine_quality_training.report.files import drop_fit, write_candidates

    names = list(ALL_MODELS) if arguments.model == "all" else [arguments.model]
    protocols = PROTOCOLS if arguments.protocol == "both" else (arguments.protocol,)
    published = sum(map(is_published, names)) * (AS_PUBLISHED in protocols)
    steps = published + len(names) * settings.folds * (LEAK_FREE in protocols)
    if not steps:
        raise BadInputError(f"{arguments.model} is not compared as published: leave --protocol out")
    with (
        open_executor(1, settings.dask) as executor,
        ThreadPoolExecutor(len(names)) as waiting,  # so that a cluster gets the fits of all models at once
        Progress(console=console) as progress,
    ):
        bar = progress.add_task("Fitting", total=steps)

        def show(step: str) -> None:
            progress.update(bar, advance=1, description=step)

        fitting = Fitting(protocols, make_map(executor), show)

        def train_and_write(name: str) -> tuple[list[Evaluation], list[Path]]:
            evaluations = train_model(name, data, split, settings.seed, fitting)
            paths = write_candidates(settings.training_models, evaluations, data, split)
            return list(map(drop_fit, evaluations)), paths

        map_models = map if is_local(executor) else waiting.map
        trained = list(map_models(train_and_write, names))
        evaluations = [evaluation for of_model, _ in trained for evaluation in of_model]
        return evaluations, [path for _, paths in trained for path in paths]


if __name__ == "__main__":
    run_command(main)
