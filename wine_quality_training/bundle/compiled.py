"""A compiled model: an ONNX graph for ONNX Runtime, without scikit-learn."""

import ctypes
import os

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf

from commands import BadInputError

PROBABILITIES = "probabilities"
TREE_ROWS = 5_000  # a forest holds each tree's votes for each row: 28 MB for so many rows
KERNEL_ROWS = 128  # a blend compares each row with 4,241 wines: 8 MB for so many rows
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
EXACT, ROUNDED = 1e-6, 1e-5  # largest difference from the pickle's probability, with sums in 64 and 32 bits


class CompiledModel:
    """Predicts as the pipeline it was compiled from.

    It uses one thread: two would add votes in another order, and a tie may then give another grade.
    """

    def __init__(self, content: bytes) -> None:
        """Load a graph. Raises BadInputError if this version of ONNX Runtime cannot load it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Otherwise a graph may read weights from other files in the folder where the server was started.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        options.log_severity_level = 3  # errors only; warnings here concern this machine's devices
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf) as error:
            raise BadInputError(f"the compiled model cannot be loaded: {error}") from error
        (wines,), (probabilities,) = self._session.get_inputs(), self._session.get_outputs()
        self._name, self.is_exact = wines.name, probabilities.type == "tensor(double)"
        self.tolerance = EXACT if self.is_exact else ROUNDED
        self._rows_at_once = TREE_ROWS if self.is_exact else KERNEL_ROWS  # exact models are trees, without a kernel

    def predict_probabilities(self, wines: np.ndarray) -> np.ndarray:
        """Probabilities, shape (wines, grades), for an array from feature_array.

        The graph may return votes, so each row is divided by its sum.
        """
        starts = range(0, max(len(wines), 1), self._rows_at_once)
        parts = [self._run(wines[start : start + self._rows_at_once]) for start in starts]
        votes = np.concatenate(parts, dtype="float64")
        probabilities: np.ndarray = votes / votes.sum(axis=1, keepdims=True)
        return probabilities

    def predict_one(self, wine: tuple[float, ...]) -> list[float]:
        """Probabilities for one wine, in the order of FEATURES; for so few numbers Python is faster than NumPy."""
        counted: list[float] = self._run(np.array([wine]))[0].tolist()
        total = sum(counted)
        return [count / total for count in counted]

    def _run(self, wines: np.ndarray) -> np.ndarray:
        votes: np.ndarray = self._session.run([PROBABILITIES], {self._name: wines})[0]
        return votes


def return_memory() -> None:
    """Return to the system the memory that loading a model freed; glibc on Linux keeps it, 100 MB for a forest."""
    if _trim:
        _trim(0)
