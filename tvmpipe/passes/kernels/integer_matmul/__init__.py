"""Products of 8-bit integers with packed columns."""

from __future__ import annotations

from tvmpipe.passes.kernels.integer_matmul.compute import INTEGER_MATMUL
from tvmpipe.passes.kernels.integer_matmul.cost import INTEGER_MATMUL_COST
from tvmpipe.passes.kernels.kernel import Kernel
from tvmpipe.passes.kernels.matmul.schedule import schedule_matmul

KERNEL = Kernel(INTEGER_MATMUL, schedule_matmul, INTEGER_MATMUL_COST)
