"""A model cut between two devices of this machine, after the first so many of its primitives."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tvmpipe.bundle import Bundle
from tvmpipe.passes import driver
from tvmpipe.passes.options import BuildOptions
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.cluster import parse_cluster

_CLUSTER = parse_cluster("".join(f'[[device]]\nname = "{name}"\nthreads = 1\n' for name in ("a", "b")))


def cut_in_two(front: driver.Fused, first: int) -> Bundle:
    """The bundle whose one device computes the `first` primitives and whose other the rest, as a plan file says."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.yaml"
        lines = [f"  {name}: {'a' if place < first else 'b'}" for place, name in enumerate(front.graph.by_name())]
        plan.write_text("placement:\n" + "\n".join(lines) + "\n")
        return driver.compile(driver.plan(front, _CLUSTER, BuildOptions(plan=plan, cost_model=Roofline()))).bundle
