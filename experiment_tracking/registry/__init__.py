"""The registry: versions, the gate that tests them, and the champion alias."""
