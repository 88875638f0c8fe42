"""Runs in MLflow: the store, what a run holds, and MLflow's own way of logging beside it."""
