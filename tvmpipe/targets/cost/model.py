"""Cost models: what a primitive does, and the seconds that takes on a device.

`targets.cost.roofline` answers for a target that nobody profiled, `targets.cost.learned` for one that somebody did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from tvmpipe.targets.description.cluster import Device
from tvmpipe.targets.description.target import TargetDescription

Source = Literal["profile", "xgboost", "roofline", "onnxruntime"]


@dataclass(frozen=True)
class Work:
    """What a primitive does, whatever device it runs on: what features are computed from, kept with measurements.

    Attributes:
        flops: useful floating-point operations of one call.
        input_bytes, weight_bytes, output_bytes: sizes of its tensors; weights are the constants of the model.
        operators: names of the operators fused into it, in order.
        key: hash of its unscheduled TIR, shapes included, or of what ONNX Runtime runs; "" for other calls.
        kernel: which of `passes.kernels.KERNELS` is at its heart, "" for none.
        spatial, reduction: loop extents of that kernel's block, of the largest block where there is no kernel.
        arithmetic: operations of all blocks, padding and transforms included.
        inner_bytes: bytes that all blocks write, results included.
        special: calls of exp, erf and the like, in all blocks.
        dtype: of the first result.
        weight_itemsize: bytes of a number of the weights that the kernel's block reads, 4 where it reads none.
        view: whether it only gives a tensor another shape, which the virtual machine does without touching it.
    """

    flops: float
    input_bytes: int = 0
    weight_bytes: int = 0
    output_bytes: int = 0
    operators: tuple[str, ...] = ()
    key: str = ""
    kernel: str = ""
    spatial: tuple[int, ...] = ()
    reduction: tuple[int, ...] = ()
    arithmetic: float = 0.0
    inner_bytes: int = 0
    special: int = 0
    dtype: str = "float32"
    weight_itemsize: int = 4
    view: bool = False

    @property
    def bytes_touched(self) -> int:
        """Bytes that it must read or write at least once."""
        return 0 if self.view else self.input_bytes + self.weight_bytes + self.output_bytes


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeWork(Work):
    """What ONNX Runtime runs: `host_s` seconds of one call on one thread of the compiling host, which is a `host`."""

    host_s: float
    host: TargetDescription

    def estimate(self, device: Device) -> Estimate:
        """Seconds on a device, infinitely many where it has no ONNX Runtime.

        Those on the host times the larger ratio of peak rates, of arithmetic on one core and of memory: the roofline's
        two ceilings, of which nobody knows which one bounds it. The interval is a factor of two either way.
        """
        if not device.onnxruntime:
            return Estimate(math.inf, "onnxruntime", math.inf, math.inf, "this host, scaled")
        seconds = self.host_s * max(
            self.host.peak_flops(1) / device.target.peak_flops(1),
            self.host.memory_bandwidth_bps / device.target.memory_bandwidth_bps,
        )
        return Estimate(seconds, "onnxruntime", seconds / 2, seconds * 2, "this host, scaled")


@dataclass(frozen=True)
class Estimate:
    """Seconds of one call, between `low_s` and `high_s` with a probability of 90 %, and where they come from.

    `based_on` names the target whose measurements were used where it is not the device's own. The roofline knows no
    interval: it says 0 to infinity.
    """

    latency_s: float
    source: Source
    low_s: float = 0.0
    high_s: float = float("inf")
    based_on: str = ""


class CostModel(Protocol):
    """Anything that prices a primitive on a device."""

    def estimate(self, work: Work, device: Device) -> Estimate:
        """Seconds that one call takes."""
        ...


CALL_S = 5e-6
"""What calling any primitive costs in the Relax virtual machine."""

STAGE_S = 80e-6
"""What running a stage costs before its first primitive: 60 to 100 us in stages of two or three primitives here."""

_COPY = 3  # times that bytes which are copied pass the memory: read, fetched where they go, written


def stage_entry(device: Device) -> tuple[float, float]:
    """Seconds that a device takes to enter a stage, and seconds per byte of the inputs, which are copied there."""
    return device.slowdown * STAGE_S, device.slowdown * _COPY / device.target.memory_bandwidth_bps
