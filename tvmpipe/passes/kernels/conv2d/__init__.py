"""Convolutions on blocked channels."""

from __future__ import annotations

from tvmpipe.passes.kernels.conv2d.compute import CONV2D
from tvmpipe.passes.kernels.conv2d.cost import CONV2D_COST
from tvmpipe.passes.kernels.conv2d.schedule import schedule_conv2d
from tvmpipe.passes.kernels.kernel import Kernel

KERNEL = Kernel(CONV2D, schedule_conv2d, CONV2D_COST)
