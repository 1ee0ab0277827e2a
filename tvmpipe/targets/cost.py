"""Cost models: seconds of a primitive on a device.

The roofline is the estimate until a learned model exists for a target; both answer through `CostModel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tvmpipe.targets.cluster import Device


@dataclass(frozen=True)
class Work:
    """What a primitive does: floating-point operations, the bytes it must at least touch, and by which operators."""

    flops: float
    bytes_touched: int
    operators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A latency in seconds and where it comes from ("roofline", later "profile" or "xgboost")."""

    latency_s: float
    source: str


class CostModel(Protocol):
    """Anything that prices a primitive on a device."""

    def estimate(self, work: Work, device: Device) -> Estimate:
        """Seconds that one call takes."""
        ...


# What an operator reaches of the rate that matmuls and convolutions sustain. Attention's exponentials are no
# multiply-adds: 47 % of peak in ViT-Base beside 90 to 93 % in its matmuls (`tvmpipe bench`).
_SHARE = {"attention": 0.5}


@dataclass(frozen=True)
class Roofline:
    """Time is the larger of compute at the sustained rate and traffic at the memory bandwidth.

    Williams, Waterman, Patterson: "Roofline: an insightful visual performance model", CACM 52(4), 2009.
    `call_s` is what calling any primitive costs in the Relax virtual machine.
    """

    call_s: float = 5e-6

    def estimate(self, work: Work, device: Device) -> Estimate:
        target = device.target
        rate = target.peak_flops(device.threads) * target.sustained_fraction
        compute_s = work.flops / (rate * min((_SHARE.get(name, 1.0) for name in work.operators), default=1.0))
        traffic_s = work.bytes_touched / target.memory_bandwidth_bps
        return Estimate(max(compute_s, traffic_s) + self.call_s, "roofline")
