"""What the loops of attention over a cache mean for its cost, where the cache is full."""

from __future__ import annotations

from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import Phases
from tvmpipe.targets.description.cpu_model import describe_cpu
from tvmpipe.targets.description.target import TargetDescription


def cached_attention_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of the loops: a chunk of keys and values is read from memory once, and by every query from a cache."""
    cpu = describe_cpu(target, threads)
    (groups,) = work.spatial
    return Phases(
        cycles=work.flops / (2 * cpu.lanes) / min(threads, groups),
        rows=1,
        columns=1,
        fill=1.0,
        tiles=groups,
        chunk=work.input_bytes / groups,
    )


# Sums of single rows wait for each other, and each score is added up across a vector.
CACHED_ATTENTION_COST = KernelCost(cached_attention_phases, computes=True, operands=3, roofline_share=0.25)
