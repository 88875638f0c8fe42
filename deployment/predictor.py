"""The model behind the API and batch scoring: a checked bundle that predicts arrays of wines."""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from operator import le
from pathlib import Path
from typing import Any

import numpy as np

from commands import BadInputError
from wine_data.schema import FEATURES, PARTS, ROWS, WineQuality, feature_array
from wine_quality_training.bundle.bundle import Bundle, CompiledBundle, find_current, load_bundle, load_compiled
from wine_quality_training.bundle.compiled import EXACT, CompiledModel
from wine_quality_training.bundle.decision import decide_grades
from wine_quality_training.bundle.explanation import find_effects, find_medians
from wine_quality_training.bundle.grade_sets import find_sets, find_sets_of_one, measure_masses
from wine_quality_training.bundle.metadata import ModelMetadata

SORTED_WINES = 500  # the fewest that are sorted before a prediction
NO_MEDIANS = "This model has no medians to explain an answer with: run make pipeline"
PART_PLACES = tuple((FEATURES.index(part), FEATURES.index(whole)) for part, whole in PARTS)


class Predictor:
    """Predicts with one bundle: with its compiled form if it has one, else with the pickled pipeline."""

    def __init__(self, bundle: Bundle | CompiledBundle) -> None:
        """Check a loaded bundle. Raises BadInputError if its predictions differ from those stored in it."""
        self.metadata: ModelMetadata = bundle.metadata
        self.grades = [int(grade) for grade in self.metadata.answers[0].probabilities]
        self._scale = np.array(self.grades, dtype="float64")
        rule = self.metadata.decision
        self._bounds = rule.find_bounds(self._scale) if rule else None
        self.medians = find_medians(self.metadata.profiles)
        self._thresholds = tuple(self.metadata.grade_sets.values())
        self._lowest, self._highest = zip(*(self.metadata.ranges[name] for name in FEATURES), strict=True)
        self._model = PickledModel(bundle.pipeline) if isinstance(bundle, Bundle) else CompiledModel(bundle.compiled)
        wines = feature_array([WineQuality(**answer.wine) for answer in self.metadata.answers])
        stored = [[answer.probabilities[str(grade)] for grade in self.grades] for answer in self.metadata.answers]
        found = self.predict_probabilities(wines)
        same_grades = self._scale[self.decide(found)[0]].tolist() == [one.prediction for one in self.metadata.answers]
        if not same_grades or not np.allclose(stored, found, rtol=0, atol=self._model.tolerance):
            raise BadInputError(
                f"version {self.metadata.version} of {self.metadata.name} no longer answers as it did when it was "
                "bundled: run make pipeline"
            )

    @property
    def is_compiled(self) -> bool:
        """Whether one prediction takes about 0.1 ms, not 10 ms."""
        return isinstance(self._model, CompiledModel)

    def predict_probabilities(self, wines: np.ndarray) -> np.ndarray:
        """Probabilities of the grades in `grades`, shape (wines, grades), for an array as feature_array makes it."""
        if len(wines) < SORTED_WINES:
            return self._model.predict_probabilities(wines)
        order = _order_by_likeness(wines)
        probabilities = np.empty((len(wines), len(self.grades)))
        probabilities[order] = self._model.predict_probabilities(wines[order])
        return probabilities

    def predict_one(self, wine: tuple[float, ...]) -> list[float]:
        """The same for one wine, as values in the order of FEATURES."""
        return self._model.predict_one(wine)

    def decide(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The position in `grades` of each prediction, and the expected quality, from such probabilities."""
        return decide_grades(probabilities, self._scale, self._bounds)

    def explain(self, wines: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """What each feature adds to the expected quality of some wines, shape (wines, 12): see find_effects.

        Raises BadInputError if the bundle is too old to have medians.
        """
        if self.medians is None:
            raise BadInputError(NO_MEDIANS)
        return find_effects(
            wines, expected, self.medians, lambda asked: self.decide(self.predict_probabilities(asked))[1]
        )

    def find_sets(self, probabilities: np.ndarray, decided: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By level, the positions in `grades` of the ends of each wine's set; `decided` comes from `decide`."""
        masses = measure_masses(probabilities, decided)
        return {level: find_sets(masses, threshold) for level, threshold in self.metadata.grade_sets.items()}

    def find_sets_of_one(self, row: list[float], decided: int) -> list[tuple[int, int]]:
        """The same for one wine, in the order of the metadata's levels."""
        return find_sets_of_one(row, decided, self._thresholds)

    def list_warnings(self, wine: tuple[float, ...], filled: Iterable[str] = ()) -> list[str]:
        """Warnings about unusual values of a wine, given in the order of FEATURES.

        `filled` names the measurements that were blank.
        """
        found = [_explain_fill(name, self.metadata.fills[name]) for name in filled] + list_impossible_parts(wine)
        if all(map(le, self._lowest, wine)) and all(map(le, wine, self._highest)):
            return found
        return found + [
            f"{name} is {value:g}; the model was fitted on {low:g} to {high:g}"
            for name, value, low, high in zip(FEATURES, wine, self._lowest, self._highest, strict=True)
            if not low <= value <= high
        ]


def list_impossible_parts(wine: Sequence[float]) -> list[str]:
    """Warnings about values of a wine, in the order of FEATURES, that exceed the total they are part of."""
    return [
        f"{FEATURES[part]} is {wine[part]:g}, more than {FEATURES[whole]}, {wine[whole]:g}"
        for part, whole in PART_PLACES
        if wine[part] > wine[whole]
    ]


def _explain_fill(name: str, value: float) -> str:
    """The warning about a measurement that was blank."""
    return f"{name} is blank; the model takes {value:g}, the mean of the {ROWS} that it was fitted on"


def _order_by_likeness(wines: np.ndarray) -> np.ndarray:
    """An order in which neighbours are alike: by whether each feature is above its median, then by its quartile.

    Wines that are alike take the same branches of a tree, and the processor predicts these: a forest is 1.4 times as
    fast. No prediction depends on the order.
    """
    sample = wines[:: max(1, len(wines) // 1000)]
    quarters = sum((wines > bound).astype("int8") for bound in np.quantile(sample, (0.25, 0.5, 0.75), axis=0))
    return np.lexsort((*quarters.T, *(quarters > 1).T))


class PickledModel:
    """Predicts with a fitted scikit-learn pipeline, on one core."""

    tolerance = EXACT

    def __init__(self, pipeline: Any) -> None:
        """Wrap a fitted classifier."""
        # For one wine, passing 100 trees to a thread pool costs more than evaluating them.
        _use_one_core(pipeline)
        self._pipeline = pipeline

    def predict_probabilities(self, wines: np.ndarray) -> np.ndarray:
        """Probabilities, shape (wines, grades)."""
        import pandas as pd  # takes half a second, which a compiled model saves

        table = pd.DataFrame(wines, columns=list(FEATURES))  # the pipeline was fitted on named columns
        return np.asarray(self._pipeline.predict_proba(table))

    def predict_one(self, wine: tuple[float, ...]) -> list[float]:
        """The same for one wine in the order of FEATURES."""
        row: list[float] = self.predict_probabilities(np.array([wine]))[0].tolist()
        return row


def _use_one_core(model: Any) -> None:
    """Turn off threads in a fitted estimator and all estimators inside it."""
    if isinstance(model, list | tuple):
        for part in model:
            _use_one_core(part)
    elif hasattr(model, "get_params"):
        if hasattr(model, "n_jobs"):
            model.n_jobs = 1
        for part in vars(model).values():
            _use_one_core(part)


def load_predictor(models: Path) -> Predictor:
    """Load and check the serving bundle, for single wines: the pickle is read only if there is no compiled form.

    Raises:
        NotThereError: there is no bundle, or only a pickle and no scikit-learn.
        BadInputError: the bundle is invalid.
    """
    return load_predictor_of(find_current(models))


def load_predictor_of(folder: Path) -> Predictor:
    """Load and check one bundle, for single wines; errors as in load_predictor."""
    return Predictor(load_compiled(folder) or load_bundle(folder))


def load_predictor_for_files(folder: Path) -> Predictor:
    """Load and check one bundle, for many wines at once: the pickle, unless scikit-learn is missing."""
    return Predictor(load_bundle(folder)) if find_spec("sklearn") else load_predictor_of(folder)
