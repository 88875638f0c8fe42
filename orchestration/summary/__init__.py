"""The result of the last finished pipeline run, in Markdown."""
