"""What the loops of a convolution of integers mean for its cost: those of floats, of a quarter of the channels."""

from __future__ import annotations

import functools

from tvmpipe.passes.kernels.conv2d.cost import conv2d_phases
from tvmpipe.targets.cost.kernel_costs import KernelCost

INTEGER_CONV2D_COST = KernelCost(functools.partial(conv2d_phases, of_bytes=True), computes=True, biased=True)
