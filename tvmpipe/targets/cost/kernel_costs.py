"""What cost models know of each kernel. The kernels register it: they lie in `tvmpipe.passes.kernels`, a layer above.

Whoever fits or applies a cost model must have imported `tvmpipe.passes.kernels`. `Work` with a kernel comes from there,
so only programs that read nothing but stored measurements have to think of it; others than the registered kernels, and
an empty registry, raise instead of giving a primitive the cost of one without a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import Phases, copied_bytes
from tvmpipe.targets.description.target import TargetDescription


@dataclass(frozen=True)
class KernelCost:
    """What the primitives around a kernel cost.

    Attributes:
        phases: counts what the kernel's loops do on so many threads of a target.
        computes: whether its time is that of arithmetic, as of a product, rather than of moving bytes; kernels of one
            class share what is learned of few measurements.
        biased: whether the first addition behind it is of a bias, so that a second one reads a tensor as large as the
            result.
        operands: how many tensors of one size it reads besides weights; the primitive before has just written the
            first of them.
        roofline_share: what it reaches of the rate that products sustain.
        of_bytes: whether it multiplies bytes, by instructions that a target may be described with or without.
    """

    phases: Callable[[Work, TargetDescription, int], Phases]
    computes: bool = False
    biased: bool = False
    operands: int = 1
    roofline_share: float = 1.0
    of_bytes: bool = False


_costs: dict[str, KernelCost] = {}


def register(kernel: str, cost: KernelCost) -> None:
    """Make a kernel's cost known. Raises ValueError where the name is taken."""
    if kernel in _costs:
        raise ValueError(f"two kernels are called {kernel!r}")
    _costs[kernel] = cost


def kernel_names() -> tuple[str, ...]:
    """The registered kernels in order. Raises LookupError where there are none."""
    return tuple(_registered())


def kernel_cost(kernel: str) -> KernelCost:
    """What is known of a kernel. Raises LookupError for one that is not registered."""
    try:
        return _registered()[kernel]
    except KeyError:
        known = ", ".join(_costs)
        raise LookupError(
            f"the kernel {kernel!r} is not registered; those that tvmpipe.passes.kernels registers: {known}"
        ) from None


def multiplies_bytes(kernel: str) -> bool:
    """Whether a kernel, or "" for none, is known to multiply bytes; of one that is not registered nothing is known."""
    cost = _registered().get(kernel)
    return cost is not None and cost.of_bytes


def phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of a primitive on `threads` threads of a target; without a kernel, only what it copies counts."""
    return kernel_cost(work.kernel).phases(work, target, threads) if work.kernel else Phases(padded=copied_bytes(work))


def _registered() -> dict[str, KernelCost]:
    if not _costs:
        raise LookupError("no kernel is registered; import tvmpipe.passes.kernels, which registers them")
    return _costs
