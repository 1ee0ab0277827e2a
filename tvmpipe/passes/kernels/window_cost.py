"""What the loops of `window_schedule` mean for the cost of depthwise convolutions and pooling."""

from __future__ import annotations

import math

from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import Phases, copied_bytes
from tvmpipe.targets.description.cpu_model import describe_cpu
from tvmpipe.targets.description.target import TargetDescription


def window_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of the loops of `schedule_window`: a vector of channels at a time."""
    lanes = describe_cpu(target, threads).lanes
    results = math.prod(work.spatial)
    return Phases(
        cycles=results / lanes * math.prod(work.reduction) / threads,
        padded=copied_bytes(work),
    )
