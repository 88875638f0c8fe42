"""Synthetic wines, for use when no data is available.

The model of each colour is a Gaussian mixture over the normal scores of the measurements and the grade. A table of
quantiles maps each score back to its unit. fit.py fitted twin.json on train of the real wines, so the holdout stays
unseen.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

from commands import BadInputError
from wine_data.schema import GRADES, KINDS, MEASUREMENTS, ROWS, TARGET, TYPE, encode_type

PARAMETERS = Path(__file__).with_name("twin.json")


def sample_twin(count: int, seed: int) -> pd.DataFrame:
    """Draw independent synthetic wines; equal count and seed give equal wines.

    Returns a table like read_wines, without blank cells. A measurement that is no longer in the schema is drawn but
    left out, so that the others do not change. Raises BadInputError if a measurement or colour of the schema was not
    fitted.
    """
    parameters = _read_parameters()
    random = np.random.default_rng(seed)
    red = random.random(count) < parameters["red_share"]
    tables = [
        _sample_type(wine_type, parameters[wine_type], int(number), random)
        for wine_type, number in zip(KINDS, (red.sum(), (~red).sum()), strict=False)
    ]
    wines = pd.concat(tables, ignore_index=True)
    return encode_type(wines.iloc[random.permutation(count)].reset_index(drop=True))


def count_decimals(measurement: str) -> int:
    """How many decimals a measurement of the twin has."""
    parameters = _read_parameters()
    return max(int(parameters[wine_type]["decimals"][measurement]) for wine_type in KINDS)


def _read_parameters() -> dict[str, Any]:
    parameters: dict[str, Any] = json.loads(PARAMETERS.read_text())
    fitted = {name for wine_type in KINDS for name in parameters.get(wine_type, {}).get("quantiles", {})}
    unknown = [name for name in (*MEASUREMENTS, *KINDS) if name not in fitted | parameters.keys()]
    if unknown:
        problem = f"there are no synthetic {ROWS} with {', '.join(unknown)}: {PARAMETERS.name} was fitted without"
        raise BadInputError(f"{problem}. To fit it on your {ROWS}: python -m wine_data.twin.fit FOLDER")
    return parameters


def _sample_type(wine_type: str, parameters: dict[str, Any], count: int, random: np.random.Generator) -> pd.DataFrame:
    """Draw scores component by component, then map each column back to its unit."""
    shares = ndtr(_sample_scores(parameters, count, random))
    wines = pd.DataFrame({TYPE: np.full(count, wine_type, dtype=object)}).astype({TYPE: "str"})
    for (column, table), share in zip(parameters["quantiles"].items(), shares.T[:-1], strict=True):
        if column in MEASUREMENTS:
            values = np.interp(share, np.linspace(0, 1, len(table)), table)
            wines[column] = values.round(parameters["decimals"][column])
    bins = np.cumsum(parameters["grade_shares"])[:-1]
    wines[TARGET] = np.array(GRADES)[np.searchsorted(bins, shares[:, -1], side="right")]
    return wines


def _sample_scores(parameters: dict[str, Any], count: int, random: np.random.Generator) -> np.ndarray:
    weights = np.array(parameters["weights"])
    size = len(parameters["quantiles"]) + 1  # one more for the grade
    components = np.sort(random.choice(len(weights), count, p=weights / weights.sum()))
    scores = random.standard_normal((count, size))
    starts = np.searchsorted(components, np.arange(len(weights) + 1))
    for component, (start, stop) in enumerate(itertools.pairwise(starts)):
        factor = np.zeros((size, size))
        factor[np.tril_indices(size)] = parameters["factors"][component]
        scores[start:stop] = parameters["means"][component] + scores[start:stop] @ factor.T
    return scores
