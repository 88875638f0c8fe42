"""Monitoring's output: the page, its figures, Evidently's reports, and the record in MLflow."""
