"""A drill: the whole loop once, from normal traffic to a rollback, on servers of its own."""
