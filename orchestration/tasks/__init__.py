"""What the tasks of the flows do, and what they reach outside: a cluster, a webhook, the API, Prefect's pages."""
