"""Traffic for an API: wines of the twin, with a drift or without."""
