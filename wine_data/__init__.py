"""The wines: their sources, the audit of their quality, and the split."""
