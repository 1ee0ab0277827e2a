"""What the loops of a convolution of integers mean for its cost: those of floats, of a quarter of the channels."""

from __future__ import annotations

from tvmpipe.passes.kernels.conv2d.cost import conv2d_phases
from tvmpipe.passes.kernels.dot_product.cost import with_instructions
from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import Phases
from tvmpipe.targets.description.target import TargetDescription


def integer_conv2d_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of the loops of `schedule_conv2d` of bytes in fours."""
    return with_instructions(conv2d_phases(work, target, threads, of_bytes=True), target, threads)


INTEGER_CONV2D_COST = KernelCost(integer_conv2d_phases, computes=True, biased=True, of_bytes=True)
