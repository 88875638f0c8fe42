"""What a load test asks the API, as locust runs it."""
