"""The card of a registered model: its use, data, scores and limits."""

from collections.abc import Sequence

from wine_data.schema import GRADES
from wine_quality_training.bundle.decision import describe_decision
from wine_quality_training.bundle.grade_sets import GUARANTEE, name_percent
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.coverage import BINS, list_coverage, measure_reliability
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.report.tables import (
    list_scores,
    list_slices,
    render_coverage,
    render_reliability,
    render_scores,
    render_slices,
)

FIFTHS = 5  # with all bins of the diagram, the card would be too long for the registry


def render_card(metadata: ModelMetadata, evaluations: Sequence[Evaluation]) -> str:
    """Write the card of a model in Markdown, from its metadata and the evaluations of both protocols."""
    accuracy, within_one = (metadata.metrics[f"{LEAK_FREE}.holdout.{name}"] for name in ("accuracy", "within_one"))
    missed = (
        f"On the holdout {1 - accuracy:.0%} of its grades are wrong, and {1 - within_one:.0%} by more than one grade."
    )
    decision = describe_decision(metadata.decision)
    versions = ", ".join(f"{library} {version}" for library, version in metadata.versions.items())
    # The first words have no Markdown, because MLflow's table of versions does not render it.
    return f"""{metadata.model}: predicts the grade that tasters would give a wine, {GRADES[0]} to {GRADES[-1]}, from
its laboratory measurements and its colour. Use it to support a taster or to sort
samples. Do not base a price, a claim on a label or a decision about a person on it.

**Data.** {metadata.data_source}, fingerprint {metadata.data_fingerprint}. Fitted on wines of the training side only.

**Decision.** It predicts {decision}. The likeliest grade may be another one.

**Leak.** The published train and validation files hold the same wines. The as-published rows below measure memory;
the leak-free rows show what to expect for new wines.

{render_scores(list_scores(evaluations))}

## By colour and grade, leak-free

{render_slices(list_slices(evaluations))}

{_render_promises(metadata, evaluations)}## Limits

The published wines are Portuguese Vinho Verde of 2004 to 2007. Grades 3, 4, 8 and 9 are rare, and the model seldom
predicts them. {missed} A measurement in a wrong unit gives a wrong grade without a warning, unless it is outside
the physical bounds.

Fitted with {versions}.
"""


def _render_promises(metadata: ModelMetadata, evaluations: Sequence[Evaluation]) -> str:
    """The guarantee of the probabilities, and the measured coverage and reliability; "" for a regressor."""
    if not metadata.grade_sets:
        return ""
    evaluation = next(each for each in evaluations if each.protocol == LEAK_FREE)
    table = evaluation.predictions["cv"]
    thresholds = " and ".join(
        f"{threshold:.4g} ({name_percent(level)} %)" for level, threshold in metadata.grade_sets.items()
    )
    return f"""## Grade sets

A grade set has consecutive grades. It begins with the prediction and grows by the likelier neighbour while its
probability is at most {thresholds}; cross-validation gave this threshold. {GUARANTEE}
The share of holdout wines whose sets held the true grade:

{render_coverage(list_coverage(evaluation))}

## Reliability

Predictions in cross-validation, in fifths from the lowest confidence to the highest. The expected calibration error
(ECE, {BINS} bins) is {measure_reliability(table).error:.3f}. The diagram is figures/reliability.png in the run.

{render_reliability(measure_reliability(table, FIFTHS))}

"""
