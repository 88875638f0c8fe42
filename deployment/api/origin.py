"""The header by which the load test says where its requests come from.

The API does not log them: nobody made these wines, and monitoring would take them for drift.
"""

ORIGIN, LOAD_TEST = "X-Wine-Origin", "load-test"
