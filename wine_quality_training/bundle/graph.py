"""A fitted classifier as an ONNX graph, from wines to the probabilities of their grades.

Made by hand from the fitted arrays, in less than a second: the library for it takes ten and knows no kernel. Blank
cells are no part of it; who asks fills them first (ModelMetadata.fills). A graph of a forest counts votes in 64 bits,
as scikit-learn does. XGBoost adds up in 32 bits, the error function has no more, and so has what they are blended to.
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
AT_MOST, LESS = 0, 1  # how a branch compares a measurement with its threshold, as TreeEnsemble numbers it
BRANCHES = 50_000  # of the trees that all wines go through before the next ones: a megabyte, which a core's cache holds
SUM = 1
BLOCK = 64  # fitted wines of a kernel that are summed in 32 bits
SIDES = ("left", "right")
# Of XGBoost, in the order of a Tree; a leaf has what it adds where a branch has its threshold.
XGBOOST_ARRAYS = ("left_children", "right_children", "split_indices", "split_conditions", "split_conditions")
FORESTS = (DecisionTreeClassifier, RandomForestClassifier, ExtraTreesClassifier)


class NoGraphError(ValueError):
    """A model, or a part of it, is of a kind that is not compiled."""


@dataclass(frozen=True)
class Tree:
    """A fitted tree: by node its children (-1: a leaf), feature and threshold, and what a leaf adds."""

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    leaf: np.ndarray


class Graph:
    """A graph to which nodes are added; each is named by its output."""

    def __init__(self) -> None:
        """Begin with the wines and their rounding to 32 bits, which trees compare."""
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self.add("Cast", WINES, to=TensorProto.FLOAT, output=WINES_32)

    def add(self, kind: str, *inputs: str | np.ndarray, output: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node; arrays among its inputs become constants. Returns the name of its output."""
        output = output or f"{kind}{len(self._nodes)}"
        names = [self._keep(each) if isinstance(each, np.ndarray) else each for each in inputs]
        self._nodes.append(helper.make_node(kind, names, [output], domain=domain, **attributes))
        return output

    def finish(self, output: str, kind: int, grades: int) -> bytes:
        """The graph whose output is that of one node."""
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
    """Convert a pipeline of models.impute_before. Raises NoGraphError where it holds a model without a graph."""
    *before, model = (step for _, step in pipeline.steps)
    if not all(isinstance(step, SimpleImputer) for step in before):
        raise NoGraphError("a step before the model does more than fill blank cells")
    if isinstance(model, OrdinalClassifier):  # its rule decides outside the graph
        model = model.classifier_
    graph = Graph()
    if isinstance(model, FORESTS):
        return graph.finish(_add_votes(graph, model), TensorProto.DOUBLE, len(model.classes_))
    return graph.finish(_add_probabilities(graph, model), TensorProto.FLOAT, len(model.classes_))


def _add_probabilities(graph: Graph, model: BaseEstimator) -> str:
    """Probabilities in 32 bits."""
    if isinstance(model, FORESTS):
        votes = graph.add("Mul", _add_votes(graph, model), np.array(1 / len(_list_trees(model))))
        return graph.add("Cast", votes, to=TensorProto.FLOAT)
    if isinstance(model, GradesFromNumbers):
        return _add_masses(graph, model)
    if isinstance(model, VotingClassifier) and model.voting == "soft" and model.weights is None:
        return graph.add("Mean", *[_add_probabilities(graph, member) for member in model.estimators_])
    raise NoGraphError(f"{type(model).__name__} has no graph")


def _list_trees(forest: BaseEstimator) -> list[Any]:
    return [tree.tree_ for tree in getattr(forest, "estimators_", [forest])]


def _add_votes(graph: Graph, forest: BaseEstimator) -> str:
    """The votes of a forest, added up. A leaf names its votes by their row in a table: most leaves are of one grade."""
    fitted = _list_trees(forest)
    votes = np.concatenate([tree.value[:, 0] for tree in fitted])
    votes[np.concatenate([tree.children_left for tree in fitted]) >= 0] = 0  # of branches
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
        graph.add("Gather", table, named),
        np.array([1]),
        keepdims=0,
    )


def _round_down(thresholds: np.ndarray) -> np.ndarray:
    """The highest 32-bit number that is at most each threshold: no 32-bit measurement lies between the two."""
    rounded = thresholds.astype("float32")
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _group_trees(trees: Sequence[Tree]) -> Iterator[Sequence[Tree]]:
    """Trees in their order, in groups of at most BRANCHES branches or of one tree."""
    groups = np.cumsum([np.count_nonzero(tree.left >= 0) for tree in trees]) // BRANCHES
    ends = [*np.flatnonzero(np.diff(groups, prepend=groups[0] - 1)).tolist(), len(trees)]
    return (trees[start:end] for start, end in pairwise(ends))


def _add_trees(graph: Graph, trees: Sequence[Tree], comparison: int, targets: np.ndarray) -> str:
    """Add what the leaves of trees add to the target of each tree, shape (wines, targets).

    Branches and leaves are numbered apart, each through all trees.
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
    """A tree that is one leaf, with a branch before it, which the format requires; any other tree as it is."""
    if len(tree.left) > 1:
        return tree
    left, right = np.array([[1, -1, -1], [2, -1, -1]])
    return Tree(left, right, np.zeros(3, dtype=int), np.zeros(3), np.repeat(tree.leaf, 3))


def _add_masses(graph: Graph, model: GradesFromNumbers) -> str:
    """The masses of a normal around a number: halves of the differences of error functions at the bounds."""
    grades = len(model.classes_)
    bounds = (model.classes_[:-1] + model.classes_[1:]) / 2
    number = _add_number(graph, model.regressor_)
    away = graph.add("Sub", bounds.astype("float32")[None], number)
    below = graph.add("Erf", graph.add("Mul", away, np.array(1 / (model.spread * 2**0.5), dtype="float32")))
    differences = (np.eye(grades - 1, grades) - np.eye(grades - 1, grades, k=1)) / 2
    ends = np.eye(1, grades)[0] / 2 + np.eye(1, grades, k=grades - 1)[0] / 2
    masses = graph.add("Gemm", below, differences.astype("float32"), ends.astype("float32"))
    return graph.add("Relu", masses)  # a difference of roundings may be below 0


def _add_number(graph: Graph, model: BaseEstimator) -> str:
    """The number that a regressor predicts, in 32 bits, shape (wines, 1)."""
    if type(model).__module__.startswith("xgboost."):
        return _add_xgboost(graph, model)
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    if [type(step) for step in steps] == [PowerTransformer, KernelRegressor]:
        return _add_kernel(graph, *steps)
    raise NoGraphError(f"{' after '.join(type(step).__name__ for step in reversed(steps))} has no graph")


def _add_xgboost(graph: Graph, model: Any) -> str:
    """The sum of the leaves of XGBoost's trees, and what it begins with."""
    learner = json.loads(bytes(model.get_booster().save_raw("json")))["learner"]
    booster = learner["gradient_booster"]
    if booster["name"] != "gbtree":
        raise NoGraphError(f"XGBoost's {booster['name']} has no graph")
    trees = [Tree(*(np.array(tree[name]) for name in XGBOOST_ARRAYS)) for tree in booster["model"]["trees"]]
    begin = np.array(json.loads(learner["learner_model_param"]["base_score"]), dtype="float32").reshape(1, 1)
    sums = [_add_trees(graph, group, LESS, np.zeros(len(group), dtype=int)) for group in _group_trees(trees)]
    return graph.add("Sum", begin, *sums)


def _add_kernel(graph: Graph, power: PowerTransformer, kernel: KernelRegressor) -> str:
    """Kernel ridge on measurements made nearly normal: exp(-distance / length) to each fitted wine, times its weight.

    Measurements are never negative, so of Yeo and Johnson's transform this is the half for those. What follows it is
    done step by step, as scikit-learn does: it takes density, with a power of -39, to numbers that differ in their last
    digits only. Distances are those of |x|^2 + |w|^2 - 2 x w, in 64 bits lest small ones drown in the difference. What
    the wines add is summed in 32 bits in blocks, and the blocks in 64: for one wine that is faster than a product in 64
    bits, and more accurate than one in 32.
    """
    powers, blocks = power.lambdas_, -(-len(kernel.wines_) // BLOCK)
    padding = blocks * BLOCK - len(kernel.wines_)  # wines of no weight
    fitted = np.pad(kernel.wines_ / kernel.length, ((0, padding), (0, 0)))
    weights = np.pad(kernel.weights_, (0, padding)).astype("float32")[None]
    wines = graph.add("Pow", graph.add("Add", WINES, np.array(1.0)), powers)
    wines = graph.add("Div", graph.add("Sub", wines, np.array(1.0)), powers)
    wines = graph.add("Div", graph.add("Sub", wines, power._scaler.mean_), power._scaler.scale_)
    wines = graph.add("Div", graph.add("Sub", wines, kernel.offsets_), kernel.scales_ * kernel.length)
    lengths = graph.add("ReduceSumSquare", wines, np.array([1]))
    products = np.vstack([-2 * fitted.T, np.ones(len(fitted))])
    squares = graph.add("Gemm", graph.add("Concat", wines, lengths, axis=1), products, (fitted**2).sum(axis=1))
    positive = graph.add("Relu", graph.add("Cast", squares, to=TensorProto.FLOAT))
    near = graph.add("Exp", graph.add("Neg", graph.add("Sqrt", positive)))
    added = graph.add("Reshape", graph.add("Mul", near, weights), np.array([-1, blocks, BLOCK]))
    sums = graph.add("ReduceSum", added, np.array([2]), keepdims=0)
    number = graph.add("ReduceSum", graph.add("Cast", sums, to=TensorProto.DOUBLE), np.array([1]))
    return graph.add("Cast", graph.add("Add", number, np.array(kernel.mean_)), to=TensorProto.FLOAT)
