"""A fitted model on disk: the pickle, its compiled form and its metadata."""
