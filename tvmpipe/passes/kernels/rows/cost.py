"""What is counted of softmax and norms: they have no register tiles, and every row stays in a cache."""

from __future__ import annotations

from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import Phases, copied_bytes
from tvmpipe.targets.description.target import TargetDescription


def rows_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The bytes that the blocks before the last one write."""
    return Phases(padded=copied_bytes(work))


ROWS_COST = KernelCost(rows_phases)
