"""The audit of a pair of files: checks, command and figure."""
