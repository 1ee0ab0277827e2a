"""Depthwise convolutions on blocked channels."""

from __future__ import annotations

from tvmpipe.passes.kernels.depthwise.compute import DEPTHWISE
from tvmpipe.passes.kernels.kernel import Kernel
from tvmpipe.passes.kernels.window_cost import window_phases
from tvmpipe.passes.kernels.window_schedule import schedule_window
from tvmpipe.targets.cost.kernel_costs import KernelCost

KERNEL = Kernel(DEPTHWISE, schedule_window, KernelCost(window_phases, computes=True, biased=True))
