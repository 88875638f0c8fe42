"""The functions behind the flows' tasks, and their external services: cluster, webhook, API, Prefect's pages."""
