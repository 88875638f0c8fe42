"""What people look at: the page, its figures, Evidently's reports, and the record in MLflow."""
