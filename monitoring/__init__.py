"""Monitoring of the service: drift, missing values, quality over time, and the alarm."""
