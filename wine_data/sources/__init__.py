"""The sources of the wines: UCI, Kaggle, a folder, many files, or the twin."""
