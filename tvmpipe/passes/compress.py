"""Encode what travels over the links that are slower than every device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvmpipe.manifest import Encoding
from tvmpipe.passes.base import CompileState, required
from tvmpipe.passes.cost import CostTable
from tvmpipe.passes.links import LinkLoad
from tvmpipe.passes.plan import Plan
from tvmpipe.passes.price import price_stages
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.targets.cluster import Cluster
from tvmpipe.units import format_duration


@dataclass(frozen=True)
class Compress:
    """With `options.compress`, let links that bound the period carry float32 tensors encoded; update `plan`.

    The placement stays. Links above every device's compute are taken one after another, slowest first, until a
    device is the bottleneck or the slowest link has nothing left to encode.
    """

    name: str = "compress"

    def apply(self, state: CompileState) -> CompileState:
        if state.options.compress == "none":
            return state
        plan, notes = compress(
            required(state.graph, "graph"),
            required(state.costs, "costs"),
            state.cluster,
            required(state.plan, "plan"),
            state.options.compress,
        )
        return replace(state, plan=plan, notes=(*state.notes, *notes))


def compress(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, plan: Plan, encoding: Encoding
) -> tuple[Plan, list[str]]:
    """The plan with its slowest links encoded, priced again, and a sentence about each of them."""
    encodings: dict[tuple[str, str], Encoding] = {}
    notes: list[str] = []
    while True:
        ends = plan.bottleneck
        slowest = _link(plan, ends)
        if slowest is None or ends in encodings or all(graph.values[v].spec.dtype != "float32" for v in slowest.values):
            return plan, notes
        encodings[slowest.sender, slowest.receiver] = encoding
        priced = price_stages(graph, costs, cluster, plan.stages, encodings)
        # The bound is one of plans that encode nothing.
        plan = replace(
            plan,
            period_s=priced.period_s,
            latency_s=priced.latency_s,
            loads=priced.loads,
            links=priced.links,
            bound_s=None,
        )
        encoded = _link(plan, ends)
        assert encoded is not None
        notes.append(
            f"the link from {slowest.sender} to {slowest.receiver} bounds the period; its float32 tensors travel as "
            f"{encoding}, which takes {format_duration(encoded.busy_s)} instead of {format_duration(slowest.busy_s)}"
        )


def _link(plan: Plan, ends: tuple[str, ...]) -> LinkLoad | None:
    return next((link for link in plan.links if (link.sender, link.receiver) == ends), None)
