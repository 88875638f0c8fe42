"""Serve a bundle: the API and the model behind it."""
