"""Snapshots of the wines that runs were fitted on, and the labelled answers that are added to them."""
