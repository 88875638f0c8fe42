"""The load test that locust runs: users, requests and checks."""
