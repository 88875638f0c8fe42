"""Runs in MLflow: the store, the content of a run, and a comparison with MLflow's autolog."""
