"""Write a training's results: each model with its metadata, the comparison of all, and figures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sklearn.base import clone

from atomic_files import write_atomically
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.bundle.bundle import write_candidate
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.models import shorten_name
from wine_quality_training.report.figures import plot_comparison
from wine_quality_training.report.tables import dump_report, render_report


def write_candidates(folder: Path, evaluations: Sequence[Evaluation], data: WineData, split: Split) -> list[Path]:
    """Write one pickle per model with its metadata: the leak-free fit, or else the as-published one."""
    paths = []
    for evaluation in {each.name: each for each in evaluations}.values():  # the leak-free one comes last
        fitted_on = split.train if evaluation.protocol == LEAK_FREE else data.train
        metadata = describe_model(evaluation, data, fitted_on)
        paths.append(write_candidate(folder, shorten_name(evaluation.name), evaluation.pipeline, metadata))
    return paths


def drop_fit(evaluation: Evaluation) -> Evaluation:
    """Replace a fitted classifier by an unfitted one; the figures predict with regressors only.

    A forest fitted on 100,000 wines takes a gigabyte.
    """
    if not evaluation.classifies:
        return evaluation
    return replace(evaluation, pipeline=clone(evaluation.pipeline))


def write_report(folder: Path, evaluations: Sequence[Evaluation], data: WineData, split: Split) -> list[Path]:
    """Write scores.md, scores.json and the figures."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    texts = {"scores.md": render_report(data, evaluations), "scores.json": dump_report(data, evaluations)}
    for name, text in texts.items():
        write_atomically(folder / name, text)
    for name, figure in plot_comparison(evaluations, split).items():
        figure.savefig(folder / "figures" / f"{name}.png")
    return [folder / name for name in texts] + [folder / "figures"]
