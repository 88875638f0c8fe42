"""Figures of the registry: the champion over time, and the gate's measurements."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiment_tracking.registry.gate import Verdict
from experiment_tracking.registry.promotion import REFUSED, Record
from figure_style import GREY, RED, make_axes


def plot_champions(records: Sequence[Record]) -> Figure:
    """Plot the champion after each move or refusal, the oldest first; a cross marks a refused version."""
    numbers = sorted({name for each in records for name in (each.champion, each.version) if name}, key=int)
    rows = {number: row for row, number in enumerate(numbers)}
    figure, (axis,) = make_axes(1, 1, height=0.45 * len(rows) + 1.6, width=9)
    for place, each in enumerate(records):
        champion = each.champion if each.event == REFUSED else each.version
        if champion:
            axis.barh(rows[champion], 1, left=place, height=0.5, color=RED)
        if each.event == REFUSED:
            axis.plot(place, rows[each.version], "x", color="black", markersize=8)
        axis.axvline(place, color=GREY, linewidth=0.6, zorder=0)
    axis.set(
        title="Which version was champion (bar), and which one the gate refused (cross)",
        xticks=range(len(records)),
        xlim=(-0.2, len(records)),
        yticks=range(len(rows)),
        ylabel="version",
    )
    axis.set_xticklabels([f"{each.event}\n{each.when:%H:%M:%S}" for each in records], fontsize=8)
    axis.set_yticklabels(rows)
    return figure


def plot_gate(verdicts: Sequence[Verdict]) -> Figure:
    """Plot the gate's comparisons, one panel per measure: the difference, its bound, and the limit."""
    asked = [verdict for verdict in verdicts if verdict.comparisons]
    measures = list(dict.fromkeys(each.measure for verdict in asked for each in verdict.comparisons))
    figure, axes = make_axes(1, len(measures), height=0.45 * len(asked) + 1.9, width=10)
    for column, (axis, measure) in enumerate(zip(axes, measures, strict=True)):
        shown = [(verdict, each) for verdict in asked for each in verdict.comparisons if each.measure == measure]
        for row, (_, each) in enumerate(shown):
            colour = RED if each.passed else GREY
            axis.plot([each.bound, each.difference], [row, row], color=colour, linewidth=2)
            axis.plot(each.difference, row, "o", color=colour)
            axis.plot(each.needed, row, "|", color="black", markersize=16)
        axis.set(title=measure, yticks=range(len(shown)), ylim=(len(shown) - 0.5, -0.5))
        labels = [f"{verdict.challenger} against {verdict.champion or 'the majority'}" for verdict, _ in shown]
        axis.set_yticklabels(labels if column == 0 else [""] * len(labels), fontsize=8)
    figure.suptitle(
        "Challenger minus champion: difference (dot), worst case (line's end), limit (black); grey: refused"
    )
    return figure
