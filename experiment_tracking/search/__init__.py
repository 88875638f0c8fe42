"""The search: which models are tried, how a trial is scored, and what the best of them come to."""
