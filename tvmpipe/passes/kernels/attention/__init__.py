"""Attention in one kernel."""

from __future__ import annotations

from tvmpipe.passes.kernels.attention.compute import ATTENTION
from tvmpipe.passes.kernels.attention.cost import ATTENTION_COST
from tvmpipe.passes.kernels.attention.schedule import schedule_attention
from tvmpipe.passes.kernels.kernel import Kernel

KERNEL = Kernel(ATTENTION, schedule_attention, ATTENTION_COST)
