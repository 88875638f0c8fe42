"""Screenshots of the running system, and the command that takes them."""
