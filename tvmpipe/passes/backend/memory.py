"""What a stage takes on its device beside its weights: TVM's static memory plan, workspaces, and its inputs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tvmpipe.passes.backend.partition import CutPlan
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.stages import StageShape, read_bytes
from tvmpipe.targets.description.cluster import Cluster

_PLANNED = "StaticPlanBlockMemory"
_STORAGE_SHARED = "tirx.StorageRewrite"


class MemoryPlan:
    """Sees what TVM allocates for a stage while it is built with `instrument` in its `PassContext`.

    TVM's virtual machine keeps what it has allocated for the next run, so that all storages of the plan count, however
    briefly each is used. Results are no part of the plan; workspaces of functions are shared by functions, not by
    threads: those that each thread has count once.
    """

    def __init__(self) -> None:
        import tvm

        self._main: Any = None
        self._workspace_bytes = 0
        seen = self

        @tvm.ir.instrument.pass_instrument
        class Watch:
            def run_after_pass(self, module: Any, info: Any) -> None:
                seen._take(str(info.name), module)

        self.instrument = Watch()

    @property
    def allocated_bytes(self) -> int:
        """Storages, results and the largest workspace; raises RuntimeError when nothing was planned."""
        if self._main is None:
            raise RuntimeError("TVM has planned no memory")
        bindings = (binding.value for block in self._main.body.blocks for binding in block.bindings)
        return sum(map(_binding_bytes, bindings)) + self._workspace_bytes

    def _take(self, done: str, module: Any) -> None:
        if done == _PLANNED:
            self._main = module["main"]
        elif done == _STORAGE_SHARED:
            self._workspace_bytes = max(self._workspace_bytes, *map(_workspace_bytes, module.functions.values()), 0)


def _binding_bytes(value: Any) -> int:
    operator = getattr(getattr(value, "op", None), "name", "")
    if operator == "relax.memory.alloc_storage":
        return int(value.args[0].values[0])
    if operator == "relax.builtin.alloc_tensor":
        shape, kind = value.args[:2]
        return math.prod(map(int, shape.values)) * np.dtype(str(kind.value)).itemsize
    return 0


def _workspace_bytes(function: Any) -> int:
    from tvm.s_tir.analysis import calculate_allocated_bytes

    (scopes,) = calculate_allocated_bytes(function).values()
    return int(scopes.get("global", 0))


def held_bytes(graph: PrimitiveGraph, shape: StageShape, allocated_bytes: int) -> int:
    """What a stage takes beside its weights when running it allocates so much.

    Its inputs count twice, but states: see `read_bytes`.
    """
    return read_bytes(graph, shape) + allocated_bytes


def with_compiled_loads(
    graphs: Sequence[PrimitiveGraph], cut: CutPlan, allocated_bytes: Mapping[str, int], cluster: Cluster
) -> CutPlan:
    """The plan with the memory that its compiled stages take of what devices have.

    `graphs` are of each bucket, `allocated_bytes` by hosted stage. Weights of all buckets lie on a device, and the
    activations of one bucket at a time.
    """
    held: dict[str, Counter[int]] = {device: Counter() for device in cut.plan.loads}  # activations of each bucket
    weights: dict[str, dict[str, int]] = {device: {} for device in cut.plan.loads}  # a device's stages share them
    for stage in cut.all_stages:
        for device, name in stage.hosted.items():
            weights[device].update((weight.name, weight.array.nbytes) for weight in stage.weights)
            held[device][stage.bucket] += held_bytes(graphs[stage.bucket], stage.shape, allocated_bytes[name])
    memory_bytes = {device.name: device.memory_bytes for device in cluster.devices}
    loads = {
        device: replace(
            load,
            weight_bytes=sum(weights[device].values()),
            activation_bytes=max(held[device].values(), default=0),
            memory_bytes=memory_bytes[device],
        )
        for device, load in cut.plan.loads.items()
    }
    return replace(cut, plan=replace(cut.plan, loads=loads))
