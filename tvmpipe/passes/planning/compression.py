"""Encode what travels over the links that are slower than every device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tvmpipe.manifest import Encoding
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.routes import LinkLoad
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.evaluate import price_stages
from tvmpipe.passes.planning.plan import Pessimistic, Plan
from tvmpipe.targets.description.cluster import Cluster
from tvmpipe.units import format_duration

_WORTHWHILE = 0.9  # of the time it takes as it is; results lose digits for it


def compress(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, plan: Plan, encoding: Encoding
) -> tuple[Plan, list[str]]:
    """The plan with links that bound its period encoded, priced again, and a sentence about each of them.

    The placement stays. Links above every device's compute are taken one after another, slowest first, until a
    device is the bottleneck, or links' latencies are, or encoding does not help the slowest link: it is encoded
    already or carries no float32.
    """
    if encoding == "none":
        return plan, []
    encodings: dict[tuple[str, str], Encoding] = {}
    notes: list[str] = []
    while True:
        slowest = _link(plan.links, plan.bottleneck)
        if slowest is None:
            return plan, notes
        encodings[slowest.sender, slowest.receiver] = encoding
        priced = price_stages(graph, costs, cluster, plan.stages, encodings)
        pessimistic = plan.pessimistic
        if pessimistic is not None:
            worst = price_stages(graph, costs.pessimistic(), cluster, plan.stages, encodings)
            pessimistic = Pessimistic(worst.period_s, worst.latency_s, None)
        encoded = next(link for link in priced.links if (link.sender, link.receiver) == plan.bottleneck)
        if encoded.busy_s > _WORTHWHILE * slowest.busy_s:
            return plan, notes
        # The bound is one of plans that encode nothing.
        plan = replace(plan.priced(priced), bound_s=None, pessimistic=pessimistic)
        notes.append(
            f"the link from {slowest.sender} to {slowest.receiver} bounds the period; its float32 tensors travel as "
            f"{encoding}, which takes {format_duration(encoded.busy_s)} instead of {format_duration(slowest.busy_s)}"
        )


def _link(links: Sequence[LinkLoad], ends: tuple[str, ...]) -> LinkLoad | None:
    return next((link for link in links if (link.sender, link.receiver) == ends), None)
