"""3x3 convolutions by minimal filtering."""

from __future__ import annotations

from tvmpipe.passes.kernels.kernel import Kernel
from tvmpipe.passes.kernels.winograd.compute import WINOGRAD
from tvmpipe.passes.kernels.winograd.cost import WINOGRAD_COST
from tvmpipe.passes.kernels.winograd.schedule import schedule_winograd

KERNEL = Kernel(WINOGRAD, schedule_winograd, WINOGRAD_COST)
