"""What is wrong with a pair of files: the checks, the command and the picture."""
