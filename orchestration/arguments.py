"""The arguments of the two commands that are flows too: their files need Prefect from the first line, these do not."""

import argparse

from wine_quality_training.models import MODELS

ALL_MODELS = tuple(MODELS)


def parse_pipeline() -> argparse.Namespace:
    """The arguments of orchestration.flows."""
    parser = argparse.ArgumentParser(
        description="Run the pipeline once: wine data to a registered model, a serving bundle and one prediction. "
        "WINE_DATA says where the wines come from."
    )
    parser.add_argument("--models", nargs="+", default=ALL_MODELS, choices=ALL_MODELS, help="those to compare (all)")
    parser.add_argument(
        "--search", type=int, default=0, metavar="TRIALS", help="tune a classifier too, in so many trials"
    )
    return parser.parse_args()


def parse_monitoring() -> argparse.Namespace:
    """The arguments of orchestration.monitoring."""
    parser = argparse.ArgumentParser(
        description="Look at the newest windows of the prediction log; an alarm starts the training deployment. "
        "Ends with 1 if there is an alarm."
    )
    parser.add_argument("--no-retraining", action="store_true", help="tell of an alarm, and start nothing")
    parser.add_argument(
        "--models", nargs="+", default=ALL_MODELS, choices=ALL_MODELS, help="that a retraining compares"
    )
    parser.add_argument("--folds", type=int, default=5, help="of its cross-validation (5)")
    return parser.parse_args()
