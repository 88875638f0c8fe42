"""Every number can be traced: runs, models and versions in MLflow."""
