"""Workers get the groups of tests that they were dealt."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there is one worker only")
def test_files_stay_whole(request: pytest.FixtureRequest) -> None:
    """pytest-xdist reads a test's group in its name; a pytest that keeps names elsewhere loses it without a word."""
    assert "@" in request.node.nodeid
