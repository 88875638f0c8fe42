"""Prefect flows that connect the other packages; none of them imports this one."""

# Before Prefect, which needs a home folder at import; commands first, so that settings is our settings.py.
import commands  # noqa: F401
import settings  # noqa: F401
