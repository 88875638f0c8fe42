"""Folders that tests have for themselves: stores, bundles, and the environment that keeps a command inside."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from experiment_tracking.runs.store import open_store
from settings import move_paths
from tests.wines import NOWHERE
from wine_data.sources.load import WineData, load_wines

isolated_environment = move_paths


@dataclass(frozen=True)
class Store:
    """A tracking store with the folder of bundles that belongs to it."""

    folder: Path
    experiment_id: str

    @property
    def models(self) -> Path:
        return self.folder / "deployment" / "models"


@dataclass(frozen=True)
class Served:
    """Bundles to serve, and the environment to serve them in."""

    models: Path
    environment: dict[str, str]


@dataclass(frozen=True)
class PipelineRun:
    """A finished `python -m orchestration.flows` in a folder of its own."""

    folder: Path
    environment: dict[str, str]
    output: str
    progress: str  # what it printed on stderr meanwhile

    def load_data(self) -> WineData:
        """Load the wines that it ran on."""
        return load_wines(self.environment["WINE_DATA"], 42, self.folder / "downloads", NOWHERE)

    @property
    def serving_models(self) -> Path:
        return self.folder / "deployment" / "models"

    @property
    def mlflow_uri(self) -> str:
        return self.environment["MLFLOW_TRACKING_URI"]


def seed_store(folder: Path, empty_stores: Path) -> None:
    """Put empty stores into a folder, for a command that would take seconds to make them."""
    shutil.copytree(empty_stores, folder, dirs_exist_ok=True)
    (folder / "mlartifacts").mkdir(exist_ok=True)


def make_store(folder: Path, empty_stores: Path) -> Store:
    """Put empty stores into a folder and open MLflow's."""
    seed_store(folder, empty_stores)
    return Store(folder, open_store(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts"))
