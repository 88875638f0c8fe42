"""Fit XGBoost on wines that lie in many files and need not fit into one machine's memory.

    python -m experiment_tracking.partitioned FOLDER

Each CSV or Parquet file of the folder, with the columns of a train file, is a partition. The workers of a Dask cluster
(WINE_DASK, or processes of this machine) read one each and fit together: XGBoost adds up the histograms of all
partitions in every round. A wine's side comes from its content, so no partition has to know another: a fifth
is never fitted on, and a sixth of the rest decides how many rounds there are. A wine that stands in several rows
counts several times, and always on one side.

Leaves a run with the model and its score on the holdout side, which python -m experiment_tracking.registry can make a
version.
"""

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client
from rich.console import Console
from sklearn.pipeline import Pipeline
from xgboost import Booster, XGBRegressor, config_context
from xgboost import dask as xgboost_on_dask

from commands import DONE, BadInputError, NotThereError, run_command
from executors import LOCAL, open_cluster
from experiment_tracking.search_space import PATIENCE, REGRESSOR, ROUNDS, START, XGBOOST
from experiment_tracking.store import open_store
from experiment_tracking.tracking import track_model
from experiment_tracking.trial import STOPPING_PARTS
from settings import load_settings
from wine_data.reader import read_wines
from wine_data.schema import FEATURES, RED, TARGET, TYPE, TYPES, feature_frame
from wine_data.sources import fingerprint_wines
from wine_data.split import HOLDOUT_SHARE, IDENTITY, Sides, draw_lots, is_holdout
from wine_quality_training.estimators import GradesFromNumbers
from wine_quality_training.evaluate import LEAK_FREE, Evaluation, evaluate_guesses
from wine_quality_training.report import list_scores, tabulate_scores

NAME = "PartitionedXGBClassifier"
SUFFIXES = (".csv", ".parquet")
SAMPLE = 50_000  # wines that the facts are described by: ranges, profile, known answers
SCORED = 20_000  # wines of the holdout side that are scored; a bootstrap of more takes gigabytes
STOPPING_SHARE = HOLDOUT_SHARE + (1 - HOLDOUT_SHARE) / STOPPING_PARTS
# Where the search starts. Which wines a round leaves out would depend on the worker they are on, so it takes all.
VALUES = START[REGRESSOR, XGBOOST] | {"subsample": 1.0}
NUMBERS = {**dict.fromkeys(FEATURES, "float32"), TARGET: "float32", "lot": "float64"}  # XGBoost itself keeps float32


@dataclass(frozen=True)
class Partitions:
    """Wines in files: how many, what they say, and a sample of the sides they stand on."""

    files: tuple[Path, ...]
    fingerprint: str
    count: int
    grades: tuple[int, ...]
    sample: Sides

    @property
    def source(self) -> str:
        """Where they come from, for a person to read."""
        return f"folder {self.files[0].parent.name} ({len(self.files)} files, {self.count:,} rows)"

    @property
    def rows(self) -> dict[str, int]:
        """How many there are."""
        return {"rows": self.count}


def look_at_partitions(folder: Path, client: Client) -> Partitions:
    """Let the workers read every file of a folder once, and say what is there.

    Raises:
        NotThereError: there is no such folder, or no file of wines in it.
        BadInputError: a file is not one of wines; names file, column and row.
    """
    files = tuple(sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES))
    if not files:
        raise NotThereError(f"{folder} holds no file that ends in {' or '.join(SUFFIXES)}")
    looks = client.gather(client.map(_look_at_file, files, share=SAMPLE // len(files), pure=False))
    fingerprint = hashlib.sha256("".join(look.fingerprint for look in looks).encode()).hexdigest()
    grades = sorted({grade for look in looks for grade in look.grades})
    sample = pd.concat([look.sample for look in looks], ignore_index=True)
    unseen = is_holdout(sample)
    sides = Sides(sample[~unseen].reset_index(drop=True), sample[unseen].reset_index(drop=True), folds=[])
    return Partitions(files, fingerprint, sum(look.count for look in looks), tuple(grades), sides)


def fit_partitions(
    partitions: Partitions, client: Client, seed: int, rounds: int = ROUNDS
) -> tuple[Pipeline, pd.DataFrame]:
    """Fit on the training side of all partitions, and return the model with the wines that it is to be scored on.

    The same partitions, seed and number of workers give the same model. Another number of workers cuts columns of
    many values, such as the density, into slightly other bins.

    Raises:
        BadInputError: the partitions leave a side empty.
    """
    workers = sorted(client.scheduler_info()["workers"])
    read = [  # each file has its worker, or the same wines would be cut into other bins the next time
        client.submit(_read_numbers, file, workers=workers[number % len(workers)], allow_other_workers=True, pure=False)
        for number, file in enumerate(partitions.files)
    ]
    table = dd.from_delayed(read, meta=pd.DataFrame(columns=list(NUMBERS)).astype(NUMBERS), verify_meta=False)
    to_fit, to_stop = table[table["lot"] >= STOPPING_SHARE], _between(table, HOLDOUT_SHARE, STOPPING_SHARE)
    to_score = _between(table, 0, min(HOLDOUT_SHARE, SCORED / partitions.count))
    scored, fitted, stopping = client.gather(client.compute([to_score, to_fit.shape[0], to_stop.shape[0]]))
    if not (len(scored) and fitted and stopping):
        raise BadInputError(f"{partitions.source}: too few wines to fit, to stop by and to score")
    booster, rmse = _boost(client, to_fit, to_stop, seed, rounds)
    regressor = XGBRegressor(**VALUES, n_estimators=booster.num_boosted_rounds(), random_state=seed)
    regressor.load_model(bytearray(booster.save_raw("ubj")))
    model = GradesFromNumbers.of_fitted(regressor, partitions.grades, rmse)
    return Pipeline([("model", model)]), scored


def _boost(
    client: Client, to_fit: dd.DataFrame, to_stop: dd.DataFrame, seed: int, rounds: int
) -> tuple[Booster, float]:
    """The rounds, and the RMSE on the part that they are stopped by."""
    features = list(FEATURES)
    fit_on = xgboost_on_dask.DaskQuantileDMatrix(client, to_fit[features], to_fit[TARGET])
    stop_by = xgboost_on_dask.DaskQuantileDMatrix(client, to_stop[features], to_stop[TARGET], ref=fit_on)
    parameters = VALUES | {"objective": "reg:squarederror", "tree_method": "hist", "seed": seed}
    with config_context(verbosity=0):  # else every worker prints its rank
        done = xgboost_on_dask.train(
            client, parameters, fit_on, num_boost_round=rounds, evals=[(stop_by, "stop")],
            early_stopping_rounds=PATIENCE, verbose_eval=False,
        )  # fmt: skip
    booster = done["booster"]
    return booster[: booster.best_iteration + 1], float(booster.best_score)


def evaluate_partitions(pipeline: Pipeline, scored: pd.DataFrame) -> Evaluation:
    """Score a model on wines of the holdout side."""
    red = scored[RED].to_numpy() == 1
    table = pd.DataFrame(
        {
            TYPE: np.where(red, *TYPES),
            TARGET: scored[TARGET].to_numpy().astype("int64"),
            "guess": pipeline.predict(feature_frame(scored)),
        }
    )
    return evaluate_guesses(NAME, LEAK_FREE, pipeline, {"holdout": table})


@dataclass(frozen=True)
class _Look:
    """What one file holds."""

    fingerprint: str
    count: int
    grades: tuple[int, ...]
    sample: pd.DataFrame


def _look_at_file(path: Path, share: int) -> _Look:
    wines = read_wines(path)
    some = np.linspace(0, len(wines) - 1, min(share, len(wines))).astype(int)
    return _Look(fingerprint_wines(wines), len(wines), tuple(wines[TARGET].unique().tolist()), wines.iloc[some])


def _read_numbers(path: Path) -> pd.DataFrame:
    """The numbers of a file, with what decides their side; a wine that none can be decided for is left out."""
    wines = read_wines(path)
    wines = wines[wines[list(IDENTITY)].notna().all(axis="columns")]
    return wines.assign(lot=draw_lots(wines))[list(NUMBERS)].astype(NUMBERS)


def _between(table: dd.DataFrame, low: float, high: float) -> dd.DataFrame:
    part: dd.DataFrame = table[(table["lot"] >= low) & (table["lot"] < high)]
    return part


def main() -> int:
    """Look, fit, score, track, and say what to do next."""
    parser = argparse.ArgumentParser(description="Fit XGBoost on wines in many files, on a Dask cluster.")
    parser.add_argument("folder", type=Path, help="folder of CSV or Parquet files, each a partition")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"the most rounds of XGBoost ({ROUNDS})")
    arguments = parser.parse_args()
    settings, console = load_settings(), Console(highlight=False, soft_wrap=True)
    if arguments.rounds < 1:
        raise BadInputError("--rounds must be more than 0")
    with console.status("Starting") as status, open_cluster(settings.dask or LOCAL) as client:
        status.update(f"Reading the files of {arguments.folder}")
        partitions = look_at_partitions(arguments.folder, client)
        console.print(f"Wines from {partitions.source}, fingerprint {partitions.fingerprint[:12]}")
        status.update(f"Fitting on {len(client.scheduler_info()['workers'])} workers")
        pipeline, scored = fit_partitions(partitions, client, settings.seed, arguments.rounds)
    evaluation = evaluate_partitions(pipeline, scored)
    experiment_id = open_store(settings.mlflow_uri, settings.mlflow_artifacts)
    tracked = track_model(experiment_id, None, partitions, partitions.sample, [evaluation])
    console.print(*tabulate_scores(list_scores([evaluation])), sep="\n")
    console.print(f"Next: python -m experiment_tracking.registry register {tracked.run_id}")
    return DONE


if __name__ == "__main__":
    run_command(main)
