"""The rooms wired into Prefect flows; imported by none of them."""

import settings  # noqa: F401 (before Prefect, which cannot be imported by a user without a home)
