"""The rooms wired into Prefect flows; imported by none of them."""
