"""Wines that runs were fitted on, kept on disk, and labelled answers that join them."""
