"""The rooms wired into Prefect flows; imported by none of them."""

# Before Prefect, which a user without a home cannot import; commands first, so that it is our settings.py.
import commands  # noqa: F401
import settings  # noqa: F401
