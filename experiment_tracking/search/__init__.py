"""The search: the space of models, the scoring of trials, and the selection of a winner."""
