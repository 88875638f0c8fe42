"""Files of wines to files of predictions, chunk by chunk."""
