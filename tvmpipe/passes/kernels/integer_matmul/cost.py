"""What the loops of a product of integers mean for its cost: those of floats, of a quarter of the length."""

from __future__ import annotations

from tvmpipe.passes.kernels.dot_product.cost import with_instructions
from tvmpipe.passes.kernels.matmul.cost import matmul_phases
from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import Phases
from tvmpipe.targets.description.target import TargetDescription


def integer_matmul_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of the loops of `schedule_matmul` of bytes in fours."""
    return with_instructions(matmul_phases(work, target, threads), target, threads)


INTEGER_MATMUL_COST = KernelCost(integer_matmul_phases, computes=True, biased=True, of_bytes=True)
