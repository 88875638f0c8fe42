"""A compiled model: an ONNX graph for ONNX Runtime, without scikit-learn."""

import ctypes

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf

from commands import BadInputError

PROBABILITIES = "probabilities"
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}


class CompiledModel:
    """Predicts as the pipeline it was compiled from.

    On one thread: with two, votes are added up in another order, and a tie may go to another grade.
    """

    def __init__(self, content: bytes) -> None:
        """Load a graph. Raises BadInputError if this version of ONNX Runtime cannot."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; a warning here is about this machine's devices
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf) as error:
            raise BadInputError(f"the compiled model cannot be loaded: {error}") from error
        _return_memory()
        (wines,) = self._session.get_inputs()
        self._name, self._type = wines.name, _TYPES[wines.type]

    def predict_probabilities(self, wines: np.ndarray) -> np.ndarray:
        """Probabilities, shape (wines, grades), for an array as feature_array lays it out.

        The trees compare 32-bit numbers, as scikit-learn's do, so wines are rounded to these first. The graph
        may count votes; they are divided by their sum here.
        """
        (votes,) = self._session.run([PROBABILITIES], {self._name: wines.astype(self._type)})
        probabilities: np.ndarray = votes / votes.sum(axis=1, keepdims=True, dtype="float64")
        return probabilities

    def predict_one(self, wine: tuple[float, ...]) -> list[float]:
        """The same for one wine in the order of FEATURES: for so few numbers Python is faster than NumPy."""
        (votes,) = self._session.run([PROBABILITIES], {self._name: np.array([wine], self._type)})
        counted: list[float] = votes[0].tolist()
        total = sum(counted)
        return [count / total for count in counted]


def _return_memory() -> None:
    """Return to the system what loading a graph took and freed: on Linux glibc keeps it, 100 MB for a forest."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
