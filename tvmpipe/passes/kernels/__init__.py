"""The operators that decide speed: what each computes, how its loops are cut, and what that means for its cost.

A kernel is a folder with `compute.py`, `schedule.py`, `cost.py` and a `KERNEL`; `KERNELS` lists them. What several of
them share lies beside the folders.

Layouts are the same for every target: channels and columns in blocks of 16, which is one AVX-512 register, two of
AVX2 and four of NEON. A tensor that passes from one device to an unlike one then needs no repacking, and the
placement sees one graph.
"""

from __future__ import annotations

from tvmpipe.passes.kernels import (
    attention,
    cached_attention,
    conv2d,
    depthwise,
    integer_conv2d,
    integer_matmul,
    matmul,
    pool,
    recurrent,
    rows,
    weight_only_matmul,
    winograd,
)
from tvmpipe.passes.kernels.kernel import Kernel
from tvmpipe.targets.cost.kernel_costs import register

_LIST = (
    attention.KERNEL,
    conv2d.KERNEL,
    depthwise.KERNEL,
    matmul.KERNEL,
    pool.KERNEL,
    rows.KERNEL,
    winograd.KERNEL,
    recurrent.KERNEL,
    integer_conv2d.KERNEL,
    integer_matmul.KERNEL,
    weight_only_matmul.KERNEL,
    cached_attention.KERNEL,
)
"""A new one goes to the end: the features that costs are learned from keep this order."""

KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in _LIST}

for _kernel in _LIST:
    register(_kernel.name, _kernel.cost)
