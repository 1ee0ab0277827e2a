"""What several tests of the head run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tvmpipe
from tests.conftest import THREE
from tvmpipe.bundle import Bundle


@pytest.fixture(scope="session")
def spare_bundle(chain_path: Path, spread_plan: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`chain` over three devices, with a plan for the loss of each."""
    cluster = tmp_path_factory.mktemp("spare") / "cluster.toml"
    cluster.write_text(THREE)
    plan = spread_plan(chain_path, ["alpha", "alpha", "beta", "beta", "gamma", "gamma"])
    bundle = tvmpipe.build(chain_path, cluster, plan=plan, failover=True)
    assert [one.lost for one in bundle.manifest.plans] == [None, "alpha", "beta", "gamma"]
    return bundle
