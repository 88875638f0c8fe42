"""Compile a fitted classifier for ONNX Runtime, and prove that it predicts as the pickle does.

For one wine, a scikit-learn forest takes milliseconds, mostly for checks and threads that one wine does not need.
Compiled, it takes a tenth of a millisecond. The proof compares both forms on three sets: every row of a twin of the
wines, 100,000 random rows in the range of the wines, and the known answers. A forest must give the same grade for every
row, and probabilities within 1e-6. With sums in 32 bits, probabilities may differ by 1e-5, and 20 in 100,000 rows, all
within 1e-4 of a boundary between grades, may get another grade. If the proof fails, there is no compiled form, and the
pickle serves.
"""

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from wine_data.schema import FEATURES, FLAG_PLACES, WineQuality, feature_array, feature_frame
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.bundle import Compiled
from wine_quality_training.bundle.compiled import CompiledModel
from wine_quality_training.bundle.decision import DecisionRule, decide_grades
from wine_quality_training.bundle.graph import NoGraphError, convert_pipeline
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.models import predicts_grades

NEAR, ALLOWED = 1e-4, 20 / 100_000
TWIN_ROWS, RANDOM_ROWS = 6_497, 100_000
SEED = 0  # differs from the pipeline's, so that no model was fitted on these wines


def compile_model(pipeline: Pipeline, metadata: ModelMetadata) -> Compiled:
    """Compile a fitted pipeline, if it can be compiled and the proof holds."""
    if not predicts_grades(pipeline):
        return Compiled(None, f"not compiled: {metadata.model} predicts no grades")
    try:
        content = convert_pipeline(pipeline)
    except NoGraphError as error:
        return Compiled(None, f"not compiled: {error}")
    proof = prove_equal(pipeline, CompiledModel(content), sample_rows(metadata), metadata.decision)
    return Compiled(content if proof.startswith("compiled") else None, proof)


def sample_rows(metadata: ModelMetadata) -> np.ndarray:
    """The rows of a proof: a twin's wines, random rows in the range of the wines, and the known answers."""
    random = np.random.default_rng(SEED)
    low, high = np.array([metadata.ranges[name] for name in FEATURES]).T
    anywhere = random.uniform(low, high, size=(RANDOM_ROWS, len(FEATURES)))
    anywhere[:, FLAG_PLACES] = anywhere[:, FLAG_PLACES].round()  # the category is 0 or 1
    known = feature_array([WineQuality(**answer.wine) for answer in metadata.answers])
    return np.concatenate([feature_frame(sample_twin(TWIN_ROWS, SEED)).to_numpy(), anywhere, known])


def prove_equal(
    pipeline: Pipeline, compiled: CompiledModel, wines: np.ndarray, rule: DecisionRule | None = None
) -> str:
    """Compare both on every wine; return a sentence that begins with "compiled" if they agree, else "not compiled"."""
    expected = pipeline.predict_proba(pd.DataFrame(wines, columns=list(FEATURES)))
    found = compiled.predict_probabilities(wines)
    grades = pipeline.classes_.astype("float64")
    bounds = rule.find_bounds(grades) if rule else None
    differing = decide_grades(expected, grades, bounds)[0] != decide_grades(found, grades, bounds)[0]
    largest = float(np.abs(expected - found).max())
    at_boundary, boundary = _find_boundary(expected, grades, bounds, NEAR * (not compiled.is_exact))
    allowed = 0 if compiled.is_exact else len(wines) * ALLOWED
    off = f"probabilities differ by up to {largest:.1g}"
    rows = f"{len(wines):,} rows, {int(at_boundary.sum()):,} of them {boundary}"
    if differing.sum() > allowed or (differing & ~at_boundary).any() or not largest <= compiled.tolerance:
        return f"not compiled: of {rows}, {differing.sum():,} got another grade; {off}"
    but = f", but for {differing.sum()} of these" if differing.any() else ""
    return f"compiled: the same grades on {rows}{but}; {off}"


def _find_boundary(
    probabilities: np.ndarray, grades: np.ndarray, bounds: np.ndarray | None, near: float
) -> tuple[np.ndarray, str]:
    """Which wines are so near a boundary that rounding may change their grade, and the boundary in words."""
    if bounds is not None and near:
        expected = probabilities @ grades
        return (np.abs(expected[:, None] - bounds) <= near).any(axis=1), f"within {near:g} of a boundary between grades"
    ranked = np.sort(probabilities, axis=1)
    tied = ranked[:, -1] - ranked[:, -2] <= near if ranked.shape[1] > 1 else np.zeros(len(ranked), dtype=bool)
    return tied, "with tied votes"
