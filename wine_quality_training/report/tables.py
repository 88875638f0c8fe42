"""A comparison of models as a table for a terminal, as Markdown and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from wine_data.sources.load import WineData
from wine_quality_training.bundle.grade_sets import name_percent
from wine_quality_training.coverage import Coverage, Reliability
from wine_quality_training.evaluate import (
    AS_PUBLISHED,
    LEAK_FREE,
    MEASURES,
    PROTOCOLS,
    SCORED_ON,
    Evaluation,
    Score,
    Scored,
    Slice,
    slice_predictions,
)

HEADINGS = dict(zip(MEASURES, ("RMSE", "MAE", "R2", "accuracy", "within 1", "kappa"), strict=True))
MEANING = {
    AS_PUBLISHED: "the same wines in both files, so this is memory",
    LEAK_FREE: "no wine in both parts, so this is what to expect",
}
NOT_SCORED = "\N{EN DASH}"
NARROW = ("rmse", "r2", "accuracy", "kappa")  # the intervals that fit into 80 columns; the files have all six


def list_scores(evaluations: Sequence[Scored]) -> list[Score]:
    """All scores, sorted by protocol and by the wines that were scored."""
    scores = [score for evaluation in evaluations for score in evaluation.scores]
    return sorted(scores, key=lambda score: (PROTOCOLS.index(score.protocol), SCORED_ON.index(score.scored_on)))


def tabulate_scores(scores: Sequence[Score]) -> list[Table]:
    """The two-protocol table for a terminal of 80 columns: one block per protocol, and one of intervals."""
    tables = []
    for protocol in dict.fromkeys(score.protocol for score in scores):
        cells = [(s, _format_measures(s)) for s in _add_unscored(scores) if s.protocol == protocol]
        tables.append(_tabulate(f"{protocol}: {MEANING[protocol]}", MEASURES, cells))
    bounded = [(s, [_format_interval(s.intervals[measure]) for measure in NARROW]) for s in scores if s.intervals]
    if bounded:
        tables.append(_tabulate("leak-free, 95 % intervals (bootstrap over the scored wines)", NARROW, bounded))
    return tables


def render_scores(scores: Sequence[Score]) -> str:
    """The two-protocol table in Markdown, with intervals if there are any."""
    rows = [
        (s.model, s.protocol, s.scored_on, f"{s.wines:,}", *_format_measures(s, True)) for s in _add_unscored(scores)
    ]
    return _render_table(("model", "protocol", "scored on"), ("wines", *HEADINGS.values()), rows)


def render_slices(slices: Sequence[Slice]) -> str:
    """Scores by colour and grade in Markdown."""
    rows = []
    for s in slices:
        measures = (f"{value:.3f}" for value in (s.mae, s.accuracy, s.within_one))
        rows.append((s.model, LEAK_FREE, s.scored_on, s.slice, f"{s.wines:,}", *measures))
    return _render_table(("model", "protocol", "scored on", "slice"), ("wines", "MAE", "accuracy", "within 1"), rows)


def render_coverage(coverage: Sequence[Coverage]) -> str:
    """Coverage and mean size of the grade sets in Markdown, one row per slice, two columns per level."""
    levels = list(dict.fromkeys(each.level for each in coverage))
    rows: dict[str, list[str]] = {}
    for each in coverage:
        low, high = each.interval
        row = rows.setdefault(each.slice, [each.slice, f"{each.wines:,}"])
        row += [f"{each.covered:.3f} ({low:.2f}-{high:.2f})", f"{each.size:.2f}"]
    headings = [word for level in levels for word in (f"hold it at {name_percent(level)} %", "mean size")]
    return _render_table(("slice",), ("wines", *headings), list(rows.values()))


def render_reliability(reliability: Reliability) -> str:
    """The reliability diagram in Markdown, one row per bin."""
    rows = [
        (f"{each.confidence:.3f}", f"{each.right:.3f} ({each.interval[0]:.2f}-{each.interval[1]:.2f})")
        for each in reliability.bins
    ]
    return _render_table((), ("mean confidence", "share right"), rows)


def list_slices(evaluations: Sequence[Evaluation]) -> list[Slice]:
    """The leak-free scores by colour and grade, from cross-validation if possible, because it has the most wines."""
    return [
        part
        for evaluation in evaluations
        if evaluation.protocol == LEAK_FREE
        for part in slice_predictions(evaluation, "cv" if "cv" in evaluation.predictions else "holdout")
    ]


def render_report(data: WineData, evaluations: Sequence[Evaluation]) -> str:
    """The whole comparison in Markdown."""
    parts = [
        "# Models compared",
        data.introduce(),
        "\n".join(f"- {protocol}: {meaning}" for protocol, meaning in MEANING.items()),
        render_scores(list_scores(evaluations)),
    ]
    slices = list_slices(evaluations)
    if slices:
        parts += ["## By colour and grade, leak-free", render_slices(slices)]
    return "\n\n".join(parts) + "\n"


def dump_report(data: WineData, evaluations: Sequence[Evaluation]) -> str:
    """The whole comparison in JSON: data, scores, slices."""
    report: dict[str, Any] = {
        "data": {"source": data.source, "fingerprint": data.fingerprint},
        "scores": [asdict(score) for score in list_scores(evaluations)],
        "slices": [asdict(part) for part in list_slices(evaluations)],
    }
    return json.dumps(report, indent=2) + "\n"


def _tabulate(title: str, measures: Sequence[str], rows: Sequence[tuple[Score, Sequence[str]]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title=f"\n{title}", title_justify="left")
    for heading in ("model", "scored on"):
        table.add_column(heading)
    for measure in measures:
        table.add_column(HEADINGS[measure], justify="right")
    for score, cells in rows:
        table.add_row(score.model, score.scored_on, *cells)
    return table


def _render_table(words: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: columns of words to the left, of numbers to the right."""
    lines = [(*words, *numbers), ("---",) * len(words) + ("---:",) * len(numbers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _add_unscored(scores: Sequence[Score]) -> list[Score]:
    """The scores, and an empty score for each model that, unlike others, was not scored as published."""
    models = dict.fromkeys(score.model for score in scores)
    blocks: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        blocks.setdefault((score.protocol, score.scored_on), []).append(score)
    for (protocol, scored_on), block in blocks.items():
        missing = [model for model in models if model not in {score.model for score in block}]
        if protocol == AS_PUBLISHED:
            block += [Score(model, protocol, scored_on, block[0].wines, {}, {}) for model in missing]
    return [score for block in blocks.values() for score in block]


def _format_measures(score: Score, with_intervals: bool = False) -> list[str]:
    """The cells of a score in the order of MEASURES; a dash for a model that was not scored."""
    if not score.metrics:
        return [NOT_SCORED] * len(MEASURES)
    values = [f"{score.metrics[measure]:.4f}" for measure in MEASURES]
    if with_intervals and score.intervals:
        bounds = (_format_interval(score.intervals[measure]) for measure in MEASURES)
        values = [f"{value} ({interval})" for value, interval in zip(values, bounds, strict=True)]
    return values


def _format_interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:.2f}-{high:.2f}" if low >= 0 else f"{low:.2f} to {high:.2f}"
