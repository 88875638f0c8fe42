"""The synthetic twin: random wines for use when no data is available."""
