"""The API: routes, live model, limits, metrics and the page with the form."""
