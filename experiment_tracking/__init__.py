"""Runs, models and versions in MLflow, so that every number can be traced."""
