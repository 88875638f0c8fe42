"""Serve a model bundle: the API and the model behind it."""
