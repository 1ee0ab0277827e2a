"""Matrix products on packed columns."""

from __future__ import annotations

from tvmpipe.passes.kernels.kernel import Kernel
from tvmpipe.passes.kernels.matmul.compute import MATMUL, legalizations
from tvmpipe.passes.kernels.matmul.cost import MATMUL_COST
from tvmpipe.passes.kernels.matmul.schedule import schedule_matmul

KERNEL = Kernel(MATMUL, schedule_matmul, MATMUL_COST, legalizations)
