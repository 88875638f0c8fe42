"""What is measured, with its results as JSON beside it; each file is a command with --help."""
