"""Where the wines come from: UCI, Kaggle, a folder, many files, or the twin."""
