"""Seconds of each primitive on each device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvmpipe.passes.base import CompileState, required
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.targets.cost import Work


@dataclass(frozen=True)
class CostTable:
    """`latency_s[device][i]` seconds of primitive `i`; `sources[device]` where they come from."""

    latency_s: Mapping[str, tuple[float, ...]]
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
                    Work(p.flops, p.input_bytes + p.output_bytes + p.weight_bytes, p.operators), device
                )
                for p in graph.primitives
            ]
            latency[device.name] = tuple(estimate.latency_s * device.slowdown for estimate in estimates)
            sources[device.name] = "+".join(sorted({estimate.source for estimate in estimates}))
        slowed = [f"{device.name} {device.slowdown:g} times" for device in state.cluster.devices if device.slowdown > 1]
        notes = (f"emulated devices, slower than their targets: {', '.join(slowed)}",) if slowed else ()
        return replace(state, costs=CostTable(latency, sources), notes=(*state.notes, *notes))
