"""Convolutions of 8-bit integers on blocked channels."""

from __future__ import annotations

from tvmpipe.passes.kernels.conv2d.schedule import schedule_conv2d
from tvmpipe.passes.kernels.integer_conv2d.compute import INTEGER_CONV2D
from tvmpipe.passes.kernels.integer_conv2d.cost import INTEGER_CONV2D_COST
from tvmpipe.passes.kernels.kernel import Kernel

KERNEL = Kernel(INTEGER_CONV2D, schedule_conv2d, INTEGER_CONV2D_COST)
