"""Cost models: seconds of a primitive on a device.

The roofline is the estimate until a learned model exists for a target; both answer through `CostModel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tvmpipe.targets.cluster import Device


@dataclass(frozen=True)
class Work:
    """What a primitive does: floating-point operations and the bytes it must at least touch."""

    flops: float
    bytes_touched: int


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


@dataclass(frozen=True)
class Roofline:
    """Time is the larger of compute at the sustained rate and traffic at the memory bandwidth.

    Williams, Waterman, Patterson: "Roofline: an insightful visual performance model", CACM 52(4), 2009.
    `call_s` is what calling any primitive costs in the Relax virtual machine.
    """

    call_s: float = 5e-6

    def estimate(self, work: Work, device: Device) -> Estimate:
        target = device.target
        compute_s = work.flops / (target.peak_flops(device.threads) * target.sustained_fraction)
        traffic_s = work.bytes_touched / target.memory_bandwidth_bps
        return Estimate(max(compute_s, traffic_s) + self.call_s, "roofline")
