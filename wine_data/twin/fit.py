"""Fit the twin's parameters, twin.json, on real wines: only complete rows of train.

python -m wine_data.twin.fit FOLDER
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atomic_files import write_atomically
from commands import DONE, run_command
from wine_data.schema import GRADES, MEASUREMENTS, TARGET, TYPE, TYPES
from wine_data.sources.load import read_folder

if TYPE_CHECKING:
    import pandas as pd

COMPONENTS = dict(zip(TYPES, (25, 60), strict=True))
QUANTILES = 200
SEED = 42


def fit_twin(wines: "pd.DataFrame") -> dict[str, Any]:
    """Fit the parameters that sample_twin reads, from complete distinct wines."""
    random = np.random.default_rng(SEED)
    parameters: dict[str, Any] = {
        "about": "Parameters of the synthetic twin, fitted by wine_data/twin/fit.py; see wine_data/README.md.",
        "licence": "CC BY 4.0; derived from Cortez et al. (2009), Wine Quality, UCI data set 186",
        "red_share": round(float((wines[TYPE] == TYPES[0]).mean()), 4),
    }
    for wine_type in TYPES:
        parameters[wine_type] = _fit_type(wines[wines[TYPE] == wine_type], COMPONENTS[wine_type], random)
    return parameters


def _fit_type(wines: "pd.DataFrame", components: int, random: np.random.Generator) -> dict[str, Any]:
    from sklearn.mixture import GaussianMixture

    scores = np.column_stack([_score_normally(wines[column], random) for column in (*MEASUREMENTS, TARGET)])
    mixture = GaussianMixture(components, reg_covar=1e-3, n_init=1, max_iter=500, random_state=SEED).fit(scores)
    lower = np.tril_indices(scores.shape[1])
    return {
        "grade_shares": [round(float((wines[TARGET] == grade).mean()), 5) for grade in GRADES],
        "decimals": {column: _count_decimals(wines[column]) for column in MEASUREMENTS},
        "quantiles": {column: _tabulate_quantiles(wines[column]) for column in MEASUREMENTS},
        "weights": mixture.weights_.round(5).tolist(),
        "means": mixture.means_.round(3).tolist(),
        "factors": [np.linalg.cholesky(c)[lower].round(3).tolist() for c in mixture.covariances_],
    }


def _score_normally(values: "pd.Series", random: np.random.Generator) -> np.ndarray:
    """Normal scores of the ranks, with ties in random order, so that a grade covers its whole share."""
    from scipy.special import ndtri

    ranks = np.argsort(np.lexsort((random.random(len(values)), values)))
    return np.asarray(ndtri((ranks + 0.5) / len(values)))


def _count_decimals(values: "pd.Series") -> int:
    """The decimals that are enough for more than 99 % of the values; a few published values are averages."""
    return next(digits for digits in range(7) if ((values.round(digits) - values).abs() < 1e-9).mean() > 0.99)


def _tabulate_quantiles(values: "pd.Series") -> list[float]:
    table = np.quantile(values, np.linspace(0, 1, QUANTILES))
    return [float(f"{value:.5g}") for value in table]


def main() -> int:
    """Fit twin.json on a folder of real wines."""
    parser = argparse.ArgumentParser(description="Fit the synthetic twin's parameters on real wines.")
    parser.add_argument("folder", type=Path, help="folder of the train and validation file, or the UCI originals")
    folder = parser.parse_args().folder

    from wine_data.split import distinct_wines, divide_wines
    from wine_data.twin.sample import PARAMETERS

    wines = distinct_wines(*read_folder(folder, SEED))
    complete = wines[wines[list(MEASUREMENTS)].notna().all(axis="columns")]
    train, _ = divide_wines(complete)
    text = json.dumps(fit_twin(train), separators=(",", ":"))
    write_atomically(PARAMETERS, text + "\n")
    print(f"Fitted on {len(train)} wines; {PARAMETERS.name} holds {len(text)} bytes. Next: make test")
    return DONE


if __name__ == "__main__":
    run_command(main)
