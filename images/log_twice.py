"""Log the same XGBoost run by hand and with autolog, on the wines and into the store of the environment.

python -m images.log_twice
"""

import argparse

from commands import DONE, run_command
from settings import load_settings
from wine_data.sources.load import load_wines

ROUNDS = 100  # a picture wants no more


def main() -> int:
    """Log both, and show what each holds."""
    argparse.ArgumentParser(description="Log the same XGBoost run by hand and with autolog, and compare.").parse_args()
    settings = load_settings()

    from experiment_tracking.runs.autolog import compare_logging
    from experiment_tracking.runs.store import open_store
    from wine_data.split import split_wines

    data = load_wines(settings.data, settings.seed, settings.downloads, settings.uci_url, settings.wine_type)
    split = split_wines(data.train, data.validation, settings.folds, settings.seed)
    experiment_id = open_store(settings.mlflow_uri, settings.mlflow_artifacts)
    print(compare_logging(experiment_id, data, split, settings.seed, ROUNDS))
    print("Next: make mlflow, and compare the two runs there")
    return DONE


if __name__ == "__main__":
    run_command(main)
