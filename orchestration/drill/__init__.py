"""A drill: the whole MLOps loop once, from normal traffic to a rollback, on its own servers."""
