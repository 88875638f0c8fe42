"""Watching what the server really answered: drift, missing values, quality over time, and the alarm."""
