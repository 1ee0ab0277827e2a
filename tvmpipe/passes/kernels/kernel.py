"""What a kernel is: the folder `passes/kernels/NAME` ends in one of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.kernels.base import Legalize
from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.description.cpu_model import CpuModel


@dataclass(frozen=True)
class Kernel:
    """An operator that decides speed, and all that is known of it.

    Attributes:
        name: what `compute` marks the block with that decides (`base.KERNEL_ATTR`); the folder's name.
        schedule: cuts the loops of a `tvm.s_tir.Schedule` around that block for a processor. Raises NotApplicable where
            the primitive has not the shape that it is for; the general rule takes it then.
        cost: what the loops mean for the cost.
        legalizations: what `LegalizeOps` is to use instead of TVM's own, by Relax operator. Kernels that a rewrite
            puts into the module have none.
    """

    name: str
    schedule: Callable[[Any, Any, CpuModel], None]
    cost: KernelCost
    legalizations: Callable[[], dict[str, Legalize]] = dict
