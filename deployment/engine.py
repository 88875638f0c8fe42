"""The model behind the API: a checked bundle that answers arrays of wines."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from commands import BadInputError
from wine_data.schema import FEATURES, WineQuality, feature_array
from wine_quality_training.bundle import Bundle, Facts, load_current

TOLERANCE = 1e-6


class Engine:
    """Answers with the pickled pipeline of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Take a loaded bundle and check that it still answers as it did when it was written.

        Raises:
            BadInputError: an answer differs from the stored one.
        """
        self.facts: Facts = bundle.facts
        # One wine at a time: handing 100 trees to a pool of threads costs more than walking them.
        self._pipeline = bundle.pipeline
        _use_one_core(self._pipeline)
        self.grades = [int(grade) for grade in self._pipeline.classes_]
        self._check_answers()

    def predict_probabilities(self, wines: np.ndarray) -> np.ndarray:
        """Probabilities of each grade in `grades`, shape (wines, grades), for an array as feature_array lays it out."""
        table = pd.DataFrame(wines, columns=list(FEATURES))  # the pipeline was fitted on named columns
        return np.asarray(self._pipeline.predict_proba(table))

    def list_warnings(self, wine: WineQuality) -> list[str]:
        """Say which measurements lie outside what the model was fitted on."""
        return [
            f"{name} is {getattr(wine, name):g}; the model was fitted on {low:g} to {high:g}"
            for name, (low, high) in self.facts.ranges.items()
            if not low <= getattr(wine, name) <= high
        ]

    def _check_answers(self) -> None:
        wines = feature_array([WineQuality(**answer.wine) for answer in self.facts.answers])
        for answer, row in zip(self.facts.answers, self.predict_probabilities(wines), strict=True):
            stored = [answer.probabilities[str(grade)] for grade in self.grades]
            if not np.allclose(stored, row, rtol=0, atol=TOLERANCE):
                raise BadInputError(
                    f"version {self.facts.version} of {self.facts.name} no longer answers as it did when it was "
                    "bundled: run make pipeline"
                )


def _use_one_core(model: Any) -> None:
    """Make a fitted estimator, and those that it was fitted with inside, answer without threads."""
    if isinstance(model, list | tuple):
        for part in model:
            _use_one_core(part)
    elif isinstance(model, BaseEstimator):
        if hasattr(model, "n_jobs"):
            model.n_jobs = 1
        for part in vars(model).values():
            _use_one_core(part)


def load_engine(models: Path) -> Engine:
    """Load and check the bundle that serves. Raises NotThereError without one, BadInputError for a bad one."""
    return Engine(load_current(models))
