"""Compile a fitted classifier for ONNX Runtime, and prove that it predicts as the pickle does.

A forest in scikit-learn takes milliseconds for one wine, most of them for checks and threads that one wine does not
need; compiled, it takes a tenth of one. The proof compares both on every row of a twin of the wines, on 100,000 random
rows in the range of the wines, and on the known answers. Where one grade differs, or one probability by more than
1e-6, there is no compiled form, and the pickle serves.
"""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from wine_data.schema import FEATURES, WineQuality, feature_array, feature_frame
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.bundle import Compiled
from wine_quality_training.bundle.compiled import PROBABILITIES, CompiledModel
from wine_quality_training.bundle.decision import DecisionRule, decide_grades
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.estimators import OrdinalClassifier
from wine_quality_training.models import predicts_grades

TOLERANCE = 1e-6
TWIN_ROWS, RANDOM_ROWS = 6_497, 100_000
SEED = 0  # another than the pipeline's, so that no model was fitted on the twin's wines


def compile_model(pipeline: Pipeline, metadata: ModelMetadata) -> Compiled:
    """Compile a fitted pipeline, if it can be compiled and the proof holds."""
    if not predicts_grades(pipeline):
        return Compiled(None, f"not compiled: {metadata.model} predicts no grades")
    try:
        content = convert_pipeline(pipeline)
    except (RuntimeError, ValueError, KeyError) as error:  # skl2onnx has no converter: KeyError for a blend's members
        return Compiled(None, f"not compiled: {str(error).strip().splitlines()[0][:200]}")
    proof = prove_equal(pipeline, CompiledModel(content), sample_rows(metadata), metadata.decision)
    return Compiled(content if proof.startswith("compiled") else None, proof)


def convert_pipeline(pipeline: Pipeline) -> bytes:
    """Convert a fitted classifier into an ONNX graph from wines, 32-bit, to probabilities."""
    from skl2onnx import to_onnx  # a second to import, and only an export needs it
    from skl2onnx.common.data_types import FloatTensorType

    model = pipeline.named_steps["model"]
    if isinstance(model, OrdinalClassifier):  # its rule decides outside the graph
        pipeline = Pipeline([*pipeline.steps[:-1], ("model", model.classifier_)])
    wines = [("wines", FloatTensorType([None, len(FEATURES)]))]
    graph = to_onnx(pipeline, initial_types=wines, options={id(pipeline): {"zipmap": False}}, name="wine-quality")
    for output in [output for output in graph.graph.output if output.name != PROBABILITIES]:
        graph.graph.output.remove(output)
    _count_votes(graph)
    return bytes(graph.SerializeToString())


def sample_rows(metadata: ModelMetadata) -> np.ndarray:
    """The rows of a proof: a twin's wines, random ones in the range of the wines, the known answers."""
    random = np.random.default_rng(SEED)
    low, high = np.array([metadata.ranges[name] for name in FEATURES]).T
    anywhere = random.uniform(low, high, size=(RANDOM_ROWS, len(FEATURES)))
    anywhere[:, -1] = anywhere[:, -1].round()  # the colour is 0 or 1
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
    differing = int((decide_grades(expected, grades, bounds)[0] != decide_grades(found, grades, bounds)[0]).sum())
    largest = float(np.abs(expected - found).max())
    ranked = np.sort(expected, axis=1)
    tied = int((ranked[:, -1] == ranked[:, -2]).sum()) if ranked.shape[1] > 1 else 0
    rows = f"{len(wines):,} rows, {tied:,} of them with tied votes"
    if differing or largest > TOLERANCE:
        return f"not compiled: of {rows}, {differing:,} got another grade; probabilities differ by up to {largest:.1g}"
    return f"compiled: the same grades on {rows}; probabilities differ by up to {largest:.1g}"


def _count_votes(graph: Any) -> None:
    """Let a tree of a forest vote with 1, not with a hundredth, and leave out its votes of 0.

    Whole numbers add up exactly in 32 bits, and CompiledModel divides by their sum; the votes of 0 that a leaf
    has for all grades but its own are half of the file. With two grades ONNX keeps the votes for one only: unchanged.
    """
    for node in graph.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "TreeEnsembleClassifier" and len(attributes["classlabels_int64s"].ints) > 2:
            votes = np.array(attributes["class_weights"].floats)
            trees = len(set(attributes["class_treeids"].ints))
            kept = votes != 0
            attributes["class_weights"].floats[:] = votes[kept] * trees
            for name in ("class_ids", "class_nodeids", "class_treeids"):
                attributes[name].ints[:] = np.array(attributes[name].ints)[kept]
