"""XGBoost on wines in many files, fitted by the workers of a Dask cluster."""
