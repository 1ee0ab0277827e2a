"""What a user may ask of a compilation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tvmpipe.manifest import Encoding
from tvmpipe.passes.objectives.base import Objective
from tvmpipe.passes.objectives.throughput import OBJECTIVE as THROUGHPUT
from tvmpipe.targets.cost.model import CostModel

if TYPE_CHECKING:
    from tvmpipe.runtime.security.keys import ClusterKey


@dataclass(frozen=True)
class BuildOptions:
    """How a model is planned and compiled.

    Attributes: `objective` what the plan is for; `time_limit_s` bounds the search for a placement; `pins` name of a
    primitive (shell pattern) -> device name; `plan` an edited plan file to follow instead of searching a plan;
    `replicate` whether devices may take samples in turn; `failover` whether to plan for the loss of each device;
    `compress` how links that bound the plan may encode float32 tensors; `robust` whether the plan is for costs at the
    upper ends of their intervals; `profiles` the folder of the user's measurements (None: the user's cache);
    `cost_model` what prices primitives (None: what is learned from the measurements that come with tvmpipe and those in
    `profiles`); `records` a folder of measured schedules to use, `tune` how many schedules of each hot primitive to
    measure and add to it, on the devices of `tracker`, with `cluster_key` where they ask for one. `prompt` and
    `generate` say of a model whose states grow how many elements a sequence begins with and how many are generated, one
    by one (None: see planning/step_mix.py).
    """

    objective: Objective = THROUGHPUT
    time_limit_s: float = 60.0
    pins: Mapping[str, str] = field(default_factory=dict)
    plan: Path | None = None
    replicate: bool = False
    failover: bool = False
    elastic: bool = False
    compress: Encoding = "none"
    robust: bool = False
    profiles: Path | None = None
    cost_model: CostModel | None = None
    records: Path | None = None
    tune: int = 0
    tracker: str | None = None
    cluster_key: ClusterKey | None = None
    prompt: int | None = None
    generate: int | None = None
