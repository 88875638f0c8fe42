"""The API: its routes, the model behind them, limits, metrics and the page with the form."""
