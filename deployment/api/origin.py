"""The header that marks the load test's requests.

The API does not log them: these wines are not real, and monitoring would report them as drift.
"""

ORIGIN, LOAD_TEST = "X-Wine-Origin", "load-test"
