"""Fit, score and pickle the models, without a tracking store or a server."""
