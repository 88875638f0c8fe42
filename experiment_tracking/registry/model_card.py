"""The card of a registered model: what it is for, what it was made of, how good it is, and where that ends."""

from collections.abc import Sequence

from wine_data.schema import GRADES, LIMITS, PURPOSE, ROW, ROWS, USE
from wine_quality_training.bundle.decision import describe_decision
from wine_quality_training.bundle.grade_sets import GUARANTEE, name_percent
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.coverage import BINS, list_coverage, measure_reliability
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.report.tables import (
    SLICES,
    list_scores,
    list_slices,
    render_coverage,
    render_reliability,
    render_scores,
    render_slices,
)

FIFTHS = 5  # all bins of the diagram would make the card longer than the registry takes


def render_card(metadata: ModelMetadata, evaluations: Sequence[Evaluation]) -> str:
    """Write the card of a model in Markdown, from its metadata and the evaluations of both protocols."""
    accuracy, within_one = (metadata.metrics[f"{LEAK_FREE}.holdout.{name}"] for name in ("accuracy", "within_one"))
    missed = f"Of the holdout's grades it missed {1 - accuracy:.0%}, and {1 - within_one:.0%} by more than one."
    decision = describe_decision(metadata.decision)
    versions = ", ".join(f"{library} {version}" for library, version in metadata.versions.items())
    # The first words without marks: MLflow's table of versions shows them as they are.
    return f"""{metadata.model}: {PURPOSE}
Grades are {GRADES[0]} to {GRADES[-1]}. {USE}

**Data.** {metadata.data_source}, fingerprint {metadata.data_fingerprint}. Fitted on {ROWS} of train alone.

**Decision.** It predicts {decision}. The probabilities are those of the model, so the likeliest grade may be another.

**Leak.** Where the train and the validation file hold the same {ROWS}, as the published files do, the as-published rows
below measure memory; what to expect of a new {ROW} are the leak-free rows.

{render_scores(list_scores(evaluations))}

## By {SLICES}, leak-free

{render_slices(list_slices(evaluations))}

{_render_promises(metadata, evaluations)}## Limits

{LIMITS} {missed} A measurement in another
unit than the schema names gives a wrong grade without a word, unless it leaves the physical bounds.

Fitted with {versions}.
"""


def _render_promises(metadata: ModelMetadata, evaluations: Sequence[Evaluation]) -> str:
    """What the probabilities promise, and how it was kept; "" for a regressor."""
    if not metadata.grade_sets:
        return ""
    evaluation = next(each for each in evaluations if each.protocol == LEAK_FREE)
    table = evaluation.predictions["cv"]
    thresholds = " and ".join(
        f"{threshold:.4g} ({name_percent(level)} %)" for level, threshold in metadata.grade_sets.items()
    )
    return f"""## Grade sets

Consecutive grades: from the prediction a set grows by the likelier neighbour while its probability is at most
{thresholds}, which cross-validation gave. {GUARANTEE}
So often the sets held the grade of a holdout {ROW}:

{render_coverage(list_coverage(evaluation))}

## Reliability

Predictions in cross-validation, from the fifth with the least confidence to the most. The expected calibration error
(ECE, {BINS} bins) is {measure_reliability(table).error:.3f}. The diagram is figures/reliability.png in the run.

{render_reliability(measure_reliability(table, FIFTHS))}

"""
