"""Tests that start agents do not meet in more workers than they were dealt to."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there is one worker only")
def test_files_stay_whole(request: pytest.FixtureRequest) -> None:
    """pytest-xdist reads a test's group in its name; a pytest that keeps names elsewhere loses it without a word."""
    assert request.node.nodeid.endswith(f"@{request.path}")
