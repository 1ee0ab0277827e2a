"""Attention over a cache of keys and values that is partly filled."""

from __future__ import annotations

from tvmpipe.passes.kernels.cached_attention.compute import CACHED_ATTENTION
from tvmpipe.passes.kernels.cached_attention.cost import CACHED_ATTENTION_COST
from tvmpipe.passes.kernels.cached_attention.schedule import schedule_cached_attention
from tvmpipe.passes.kernels.kernel import Kernel

KERNEL = Kernel(CACHED_ATTENTION, schedule_cached_attention, CACHED_ATTENTION_COST)
