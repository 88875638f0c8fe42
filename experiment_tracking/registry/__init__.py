"""The registry: versions, the gate that judges them, and the champion alias."""
