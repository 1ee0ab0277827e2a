"""Products of floats with weights of 2, 4 or 8 bits, which stay packed."""

from __future__ import annotations

from tvmpipe.passes.kernels.kernel import Kernel
from tvmpipe.passes.kernels.weight_only_matmul.compute import WEIGHT_ONLY_MATMUL
from tvmpipe.passes.kernels.weight_only_matmul.cost import WEIGHT_ONLY_MATMUL_COST
from tvmpipe.passes.kernels.weight_only_matmul.schedule import schedule_weight_only_matmul

KERNEL = Kernel(WEIGHT_ONLY_MATMUL, schedule_weight_only_matmul, WEIGHT_ONLY_MATMUL_COST)
