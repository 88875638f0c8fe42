"""The wines: their sources, the audit of the data, and the split."""
