"""The tests in several processes."""

import os

import pytest

from tests.conftest import name_group

pytestmark = pytest.mark.fast


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="the tests run in one process")
def test_pytest_xdist_heeds_the_groups(request: pytest.FixtureRequest) -> None:
    """A version of pytest that it did not know left it deal every test by itself, without a word."""
    assert request.node.nodeid.endswith(f"@{name_group(request.node)}")
