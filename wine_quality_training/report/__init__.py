"""The report of a training: tables, figures and their files."""
