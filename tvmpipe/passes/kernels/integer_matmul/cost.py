"""What the loops of a product of integers mean for its cost: those of floats, of a quarter of the length."""

from __future__ import annotations

from dataclasses import replace

from tvmpipe.passes.kernels.dot_product import instructions_of
from tvmpipe.passes.kernels.matmul.cost import matmul_phases
from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import Phases
from tvmpipe.targets.description.cpu_model import describe_cpu
from tvmpipe.targets.description.target import TargetDescription


def integer_matmul_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of the loops of `schedule_matmul` of bytes in fours."""
    found = matmul_phases(work, target, threads)
    return replace(found, cycles=found.cycles * instructions_of(describe_cpu(target, threads)).steps)


INTEGER_MATMUL_COST = KernelCost(integer_matmul_phases, computes=True, biased=True)
