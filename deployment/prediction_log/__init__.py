"""The prediction log: what the API answered, written beside it and read by monitoring."""
