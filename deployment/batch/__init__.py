"""Batch prediction: from files of wines to files of predictions, chunk by chunk."""
