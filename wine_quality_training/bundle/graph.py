"""A fitted classifier as an ONNX graph, from wines to the probabilities of their grades.

The graph is built directly from the fitted arrays, in less than a second; the usual library takes ten and does not
support the kernel. It does not handle blank cells: the caller fills them first (ModelMetadata.fills). A forest's graph
sums votes in 64 bits, as scikit-learn does. XGBoost, the error function and blends with them use 32 bits.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from sklearn.base import BaseEstimator
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PowerTransformer
from sklearn.tree import DecisionTreeClassifier

from wine_data.schema import FEATURES, NAME
from wine_quality_training.bundle.compiled import PROBABILITIES
from wine_quality_training.estimators import GradesFromNumbers, KernelRegressor, OrdinalClassifier

WINES, WINES_32 = "wines", "wines32"
OPSETS = {"": 21, "ai.onnx.ml": 5}
AT_MOST, LESS = 0, 1  # how a branch compares a measurement with its threshold, by TreeEnsemble's numbers
BRANCHES = 50_000  # in one group of trees, which all wines pass before the next: a megabyte, so it fits a core's cache
SUM = 1
BLOCK = 64  # a kernel's fitted wines per sum in 32 bits
SIDES = ("left", "right")
# XGBoost's arrays in the order of Tree's fields; a leaf's value is in the place of a branch's threshold.
XGBOOST_ARRAYS = ("left_children", "right_children", "split_indices", "split_conditions", "split_conditions")
FORESTS = (DecisionTreeClassifier, RandomForestClassifier, ExtraTreesClassifier)


class NoGraphError(ValueError):
    """The model, or a part of it, is of a kind that cannot be compiled."""


@dataclass(frozen=True)
class Tree:
    """A fitted tree: for each node its children (-1: a leaf), feature, threshold and leaf value."""

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    leaf: np.ndarray


class Graph:
    """An ONNX graph under construction; the name of a node is that of its output."""

    def __init__(self) -> None:
        """Begin with the wines, also rounded to 32 bits for the trees."""
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self.add("Cast", WINES, to=TensorProto.FLOAT, output=WINES_32)

    def add(self, kind: str, *inputs: str | np.ndarray, output: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output; arrays among the inputs become constants."""
        output = output or f"{kind}{len(self._nodes)}"
        names = [self._keep(each) if isinstance(each, np.ndarray) else each for each in inputs]
        self._nodes.append(helper.make_node(kind, names, [output], domain=domain, **attributes))
        return output

    def finish(self, output: str, kind: int, grades: int) -> bytes:
        """Serialize the graph, with the output of one node as its output."""
        self.add("Identity", output, output=PROBABILITIES)
        wines = helper.make_tensor_value_info(WINES, TensorProto.DOUBLE, [None, len(FEATURES)])
        probabilities = helper.make_tensor_value_info(PROBABILITIES, kind, [None, grades])
        graph = helper.make_graph(self._nodes, NAME, [wines], [probabilities], self._constants)
        opsets = [helper.make_opsetid(*each) for each in OPSETS.items()]
        model: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return bytes(model.SerializeToString())

    def _keep(self, values: np.ndarray) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def convert_pipeline(pipeline: Pipeline) -> bytes:
    """Convert a pipeline of models.impute_before. Raises NoGraphError if its model cannot be compiled."""
    *before, model = (step for _, step in pipeline.steps)
    if not all(isinstance(step, SimpleImputer) for step in before):
        raise NoGraphError("a step before the model does more than fill blank cells")
    if isinstance(model, OrdinalClassifier):  # its rule is applied outside the graph
        model = model.classifier_
    graph = Graph()
    if isinstance(model, FORESTS):
        return graph.finish(_add_votes(graph, model), TensorProto.DOUBLE, len(model.classes_))
    return graph.finish(_add_probabilities(graph, model), TensorProto.FLOAT, len(model.classes_))


def _add_probabilities(graph: Graph, model: BaseEstimator) -> str:
    """Probabilities in 32 bits."""
    if isinstance(model, FORESTS):
        return graph.add("Cast", _add_votes(graph, model, 1 / len(_list_trees(model))), to=TensorProto.FLOAT)
    if isinstance(model, GradesFromNumbers):
        return _add_masses(graph, model)
    if isinstance(model, VotingClassifier) and model.voting == "soft" and model.weights is None:
        return graph.add("Mean", *[_add_probabilities(graph, member) for member in model.estimators_])
    raise NoGraphError(f"{type(model).__name__} has no graph")


def _list_trees(forest: BaseEstimator) -> list[Any]:
    return [tree.tree_ for tree in getattr(forest, "estimators_", [forest])]


def _add_votes(graph: Graph, forest: BaseEstimator, weight: float = 1) -> str:
    """The weighted sum of a forest's votes; a leaf names a row in a table of votes, as most leaves have one grade."""
    fitted = _list_trees(forest)
    votes = np.concatenate([tree.value[:, 0] for tree in fitted])
    votes[np.concatenate([tree.children_left for tree in fitted]) >= 0] = 0  # branches have no votes
    distinct, rows = np.unique(votes.view(f"V{votes[0].nbytes}"), return_inverse=True)
    table = distinct.view("float64").reshape(-1, votes.shape[1])
    leaves = np.split(rows.ravel(), np.cumsum([tree.node_count for tree in fitted])[:-1])
    trees = [
        Tree(tree.children_left, tree.children_right, tree.feature, _round_down(tree.threshold), leaf)
        for tree, leaf in zip(fitted, leaves, strict=True)
    ]
    parts = [_add_trees(graph, group, AT_MOST, np.arange(len(group))) for group in _group_trees(trees)]
    named = graph.add("Cast", graph.add("Concat", *parts, axis=1), to=TensorProto.INT32)
    return graph.add(
        "ReduceSum",
        graph.add("Gather", weight * table, named),
        np.array([1]),
        keepdims=0,
    )


def _round_down(thresholds: np.ndarray) -> np.ndarray:
    """Round each threshold down to 32 bits; no 32-bit measurement lies between the two numbers."""
    rounded = thresholds.astype("float32")
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _group_trees(trees: Sequence[Tree]) -> Iterator[Sequence[Tree]]:
    """Trees in order, in groups of about BRANCHES branches, or of one larger tree."""
    groups = np.cumsum([np.count_nonzero(tree.left >= 0) for tree in trees]) // BRANCHES
    ends = [*np.flatnonzero(np.diff(groups, prepend=groups[0] - 1)).tolist(), len(trees)]
    return (trees[start:end] for start, end in pairwise(ends))


def _add_trees(graph: Graph, trees: Sequence[Tree], comparison: int, targets: np.ndarray) -> str:
    """Add trees to the graph; each adds its leaf value to its target, shape (wines, targets).

    Branches and leaves have separate numbers, each consecutive over all trees.
    """
    trees = [_with_branch(tree) for tree in trees]
    sizes = [len(tree.left) for tree in trees]
    is_branch = np.concatenate([tree.left >= 0 for tree in trees])
    number = np.where(is_branch, np.cumsum(is_branch), np.cumsum(~is_branch)) - 1
    starts = np.cumsum([0, *sizes[:-1]])
    shifts = np.repeat(starts, sizes)[is_branch]
    true, false = (np.concatenate([getattr(tree, side) for tree in trees])[is_branch] + shifts for side in SIDES)
    threshold = np.concatenate([tree.threshold for tree in trees])[is_branch].astype("float32")
    leaf = np.concatenate([tree.leaf for tree in trees])[~is_branch].astype("float32")
    return graph.add(
        "TreeEnsemble",
        WINES_32,
        domain="ai.onnx.ml",
        aggregate_function=SUM,
        n_targets=int(targets.max()) + 1,
        tree_roots=number[starts].tolist(),
        nodes_featureids=np.concatenate([tree.feature for tree in trees])[is_branch].tolist(),
        nodes_splits=numpy_helper.from_array(threshold),
        nodes_modes=numpy_helper.from_array(np.full(len(threshold), comparison, dtype="uint8")),
        nodes_truenodeids=number[true].tolist(),
        nodes_trueleafs=(~is_branch[true]).astype(int).tolist(),
        nodes_falsenodeids=number[false].tolist(),
        nodes_falseleafs=(~is_branch[false]).astype(int).tolist(),
        leaf_targetids=np.repeat(targets, sizes)[~is_branch].tolist(),
        leaf_weights=numpy_helper.from_array(leaf),
    )


def _with_branch(tree: Tree) -> Tree:
    """Put a branch, which the format requires, before a tree that is one leaf; return any other tree as it is."""
    if len(tree.left) > 1:
        return tree
    left, right = np.array([[1, -1, -1], [2, -1, -1]])
    return Tree(left, right, np.zeros(3, dtype=int), np.zeros(3), np.repeat(tree.leaf, 3))


def _add_masses(graph: Graph, model: GradesFromNumbers) -> str:
    """The masses of a normal distribution around a number: half the differences of error functions at the bounds."""
    grades = len(model.classes_)
    bounds = (model.classes_[:-1] + model.classes_[1:]) / 2
    number = _add_number(graph, model.regressor_)
    away = graph.add("Sub", bounds.astype("float32")[None], number)
    below = graph.add("Erf", graph.add("Mul", away, np.array(1 / (model.spread * 2**0.5), dtype="float32")))
    differences = (np.eye(grades - 1, grades) - np.eye(grades - 1, grades, k=1)) / 2
    ends = np.eye(1, grades)[0] / 2 + np.eye(1, grades, k=grades - 1)[0] / 2
    masses = graph.add("Gemm", below, differences.astype("float32"), ends.astype("float32"))
    return graph.add("Relu", masses)  # a rounding error may make a difference negative


def _add_number(graph: Graph, model: BaseEstimator) -> str:
    """The number that a regressor predicts, in 32 bits, shape (wines, 1)."""
    if type(model).__module__.startswith("xgboost."):
        return _add_xgboost(graph, model)
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    if [type(step) for step in steps] == [PowerTransformer, KernelRegressor]:
        return _add_kernel(graph, *steps)
    raise NoGraphError(f"{' after '.join(type(step).__name__ for step in reversed(steps))} has no graph")


def _add_xgboost(graph: Graph, model: Any) -> str:
    """The sum of XGBoost's base score and the leaf values of its trees."""
    learner = json.loads(bytes(model.get_booster().save_raw("json")))["learner"]
    booster = learner["gradient_booster"]
    if booster["name"] != "gbtree":
        raise NoGraphError(f"XGBoost's {booster['name']} has no graph")
    trees = [Tree(*(np.array(tree[name]) for name in XGBOOST_ARRAYS)) for tree in booster["model"]["trees"]]
    begin = np.array(json.loads(learner["learner_model_param"]["base_score"]), dtype="float32").reshape(1, 1)
    sums = [_add_trees(graph, group, LESS, np.zeros(len(group), dtype=int)) for group in _group_trees(trees)]
    return graph.add("Sum", begin, *sums)


def _add_kernel(graph: Graph, power: PowerTransformer, kernel: KernelRegressor) -> str:
    """Kernel ridge on power-transformed measurements: the sum over fitted wines of weight * exp(-distance / length).

    Measurements are never negative, so only that half of the Yeo-Johnson transform is needed. The steps after it are
    separate, as in scikit-learn, because the transform maps density, with a power of -39, to numbers that differ only
    in their last digits. The kernel's own scaling moves the fitted wines instead. Squared distances are
    |x|^2 + |w|^2 - 2 x w, in 64 bits because rounding would hide small ones. The terms of the sum are added in 32 bits
    in blocks, and the blocks in 64 bits. For one wine this is faster than a product in 64 bits, and more accurate than
    one in 32.
    """
    powers, blocks = power.lambdas_, -(-len(kernel.wines_) // BLOCK)
    padding = blocks * BLOCK - len(kernel.wines_)  # wines with weight 0
    scales = kernel.scales_ * kernel.length
    fitted = np.pad((kernel.wines_ * kernel.scales_ + kernel.offsets_) / scales, ((0, padding), (0, 0)))
    weights = np.pad(kernel.weights_, (0, padding)).astype("float32")[None]
    wines = graph.add("Pow", graph.add("Add", WINES, np.array(1.0)), powers)
    wines = graph.add("Div", graph.add("Sub", wines, np.array(1.0)), powers)
    wines = graph.add("Div", graph.add("Sub", wines, power._scaler.mean_), power._scaler.scale_ * scales)
    lengths = graph.add("ReduceSumSquare", wines, np.array([1]))
    products = np.vstack([-2 * fitted.T, np.ones(len(fitted))])
    squares = graph.add("Gemm", graph.add("Concat", wines, lengths, axis=1), products, (fitted**2).sum(axis=1))
    distances = graph.add("Sqrt", graph.add("Relu", graph.add("Cast", squares, to=TensorProto.FLOAT)))
    terms = graph.add("Reshape", graph.add("Div", weights, graph.add("Exp", distances)), np.array([-1, blocks, BLOCK]))
    sums = graph.add("Cast", graph.add("ReduceSum", terms, np.array([2]), keepdims=0), to=TensorProto.DOUBLE)
    number = graph.add("Gemm", sums, np.ones((blocks, 1)), np.array([kernel.mean_]))
    return graph.add("Cast", number, to=TensorProto.FLOAT)
