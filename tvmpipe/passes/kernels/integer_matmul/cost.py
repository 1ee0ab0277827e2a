"""What the loops of a product of integers mean for its cost: those of floats, of a quarter of the length."""

from __future__ import annotations

from tvmpipe.passes.kernels.matmul.cost import matmul_phases
from tvmpipe.targets.cost.kernel_costs import KernelCost

INTEGER_MATMUL_COST = KernelCost(matmul_phases, computes=True, biased=True)
