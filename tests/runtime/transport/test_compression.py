"""Links that carry tensors encoded: what they change, and that nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tvmpipe
from tests.models import chain
from tvmpipe.commands.samples import random_samples
from tvmpipe.manifest import Encoding
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.targets.description.cluster import parse_cluster

# So slow that the links between devices are what bounds any plan.
SLOW = "".join(f'[[device]]\nname = "{name}"\nthreads = 1\n' for name in ("alpha", "beta", "gamma"))
SLOW += '[network]\nbandwidth = "100kB/s"\nlatency = "0s"\n'


@pytest.mark.parametrize(("encoding", "least", "most"), [("fp16", 1e-6, 5e-3), ("int8", 1e-4, 5e-2)])
def test_encoded_links_change_results_by_what_is_measured(
    chain_path: Path, spread_plan: Any, agents: LocalCluster, encoding: Encoding, least: float, most: float
) -> None:
    plan = spread_plan(chain_path, ["alpha", "alpha", "beta", "beta", "gamma", "gamma"])
    bundle = tvmpipe.build(chain_path, parse_cluster(SLOW), plan=plan, compress=encoding)
    assert encoding in {link.encoding for link in bundle.manifest.plan.links}
    reference = Reference(chain().SerializeToString())
    (sample,) = random_samples(bundle.manifest, 1, seed=3)
    with tvmpipe.connect(bundle, agents.tracker) as pipe:
        measured = pipe.compression_error(sample)
        against_reference = reference.compare(pipe.run(sample), sample)
    assert least < measured < most
    assert against_reference.relative == pytest.approx(measured, rel=0.1, abs=1e-5)
