"""Seconds of each primitive on each device, and the bytes that are live while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvmpipe.passes.base import CompileState, required
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.targets.cost import Work


@dataclass(frozen=True)
class CostTable:
    """`latency_s[device][i]` seconds of primitive `i`; `live_bytes[i]` activations alive while it runs.

    `live_bytes` counts, over the order in which primitives run, every tensor that is made before or by
    primitive `i` and read by it or later. A stage of consecutive primitives never holds more.
    """

    latency_s: Mapping[str, tuple[float, ...]]
    live_bytes: tuple[int, ...]
    sources: Mapping[str, str]


@dataclass(frozen=True)
class Cost:
    """Price every primitive on every device with the cost model; fill in `costs`."""

    name: str = "cost"

    def apply(self, state: CompileState) -> CompileState:
        graph: PrimitiveGraph = required(state.graph, "graph")
        latency: dict[str, tuple[float, ...]] = {}
        sources: dict[str, str] = {}
        for device in state.cluster.devices:
            estimates = [
                state.options.cost_model.estimate(
                    Work(p.flops, p.input_bytes + p.output_bytes + p.weight_bytes), device
                )
                for p in graph.primitives
            ]
            latency[device.name] = tuple(estimate.latency_s for estimate in estimates)
            sources[device.name] = "+".join(sorted({estimate.source for estimate in estimates}))
        return replace(state, costs=CostTable(latency, live_activation_bytes(graph), sources))


def live_activation_bytes(graph: PrimitiveGraph) -> tuple[int, ...]:
    """Bytes of activations alive at each primitive when all run in order on one device."""
    count = len(graph.primitives)
    last_use = [value.producer if value.producer is not None else 0 for value in graph.values]
    for primitive in graph.primitives:
        for read in primitive.inputs:
            last_use[read] = max(last_use[read], primitive.index)
    for result in graph.model_outputs.values():
        last_use[result] = count - 1
    change = [0] * (count + 1)
    for value in graph.values:
        size = value.spec.size_bytes
        change[value.producer or 0] += size
        change[last_use[value.id] + 1] -= size
    live, total = [], 0
    for index in range(count):
        total += change[index]
        live.append(total)
    return tuple(live)
