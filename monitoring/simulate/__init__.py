"""Simulated traffic for an API: wines of the twin, with or without drift."""
