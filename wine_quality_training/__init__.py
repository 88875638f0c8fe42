"""Fit, score and pickle the models, with no tracking store and no server in sight."""
