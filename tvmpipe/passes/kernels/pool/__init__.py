"""Pooling on blocked channels."""

from __future__ import annotations

from tvmpipe.passes.kernels.kernel import Kernel
from tvmpipe.passes.kernels.pool.compute import POOL
from tvmpipe.passes.kernels.window_cost import window_phases
from tvmpipe.passes.kernels.window_schedule import schedule_window
from tvmpipe.targets.cost.kernel_costs import KernelCost

KERNEL = Kernel(POOL, schedule_window, KernelCost(window_phases))
