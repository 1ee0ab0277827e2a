"""The cost model of a target that nobody profiled."""

from __future__ import annotations

from dataclasses import dataclass

from tvmpipe.targets.cost.kernel_costs import kernel_cost, kernel_names
from tvmpipe.targets.cost.model import CALL_S, Estimate, Work
from tvmpipe.targets.description.cluster import Device


@dataclass(frozen=True)
class Roofline:
    """Time is the larger of compute at the sustained rate and traffic at the memory bandwidth.

    Williams, Waterman, Patterson: "Roofline: an insightful visual performance model", CACM 52(4), 2009.
    """

    call_s: float = CALL_S

    def estimate(self, work: Work, device: Device) -> Estimate:
        target = device.target
        rate = target.peak_flops(device.threads) * target.sustained_fraction
        kernels = set(kernel_names()).intersection(work.operators)
        compute_s = work.flops / (rate * min((kernel_cost(name).roofline_share for name in kernels), default=1.0))
        traffic_s = work.bytes_touched / target.memory_bandwidth_bps
        return Estimate(max(compute_s, traffic_s) + self.call_s, "roofline")
