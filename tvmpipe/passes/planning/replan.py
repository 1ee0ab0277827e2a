"""The same model planned again for another cluster: with a device less, one more, or faster links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tvmpipe.passes.base import CompileState, required
from tvmpipe.passes.planning.compression import Compress
from tvmpipe.passes.planning.cost_table import Cost
from tvmpipe.passes.planning.evaluate import price, price_stages
from tvmpipe.passes.planning.place import Place
from tvmpipe.passes.planning.plan import Plan
from tvmpipe.targets.description.cluster import Cluster


def replan(
    state: CompileState,
    cluster: Cluster,
    pins: Mapping[str, str],
    time_limit_s: float,
    known: Mapping[str, str] | None = None,
    origin: str = "known",
) -> CompileState:
    """The state with the plan for `cluster`, and with the notes about that plan alone; a plan file does not hold.

    `known` is a placement that can run there too; where the search finds nothing better it is the plan, of that
    `origin`. Raises InfeasibleError.
    """
    options = replace(state.options, pins=pins, plan_file=None, time_limit_s=time_limit_s)
    again = Place().apply(Cost().apply(replace(state, cluster=cluster, options=options, notes=(), plan=None)))
    if known is not None:
        again = replace(again, plan=_better(again, known, origin))
    return Compress().apply(again)


def _better(state: CompileState, known: Mapping[str, str], origin: str) -> Plan:
    found: Plan = required(state.plan, "plan")
    graph, costs = required(state.graph, "graph"), required(state.costs, "costs")
    judged = costs if found.pessimistic is None else costs.pessimistic()
    priced = price(graph, judged, state.cluster, known, found.objective)
    if priced.missing_bytes or priced.figure(found.objective) > found.chosen_by_s:
        return found
    pessimistic = found.pessimistic
    if pessimistic is not None:
        pessimistic = replace(pessimistic, period_s=priced.period_s, latency_s=priced.latency_s)
        priced = price_stages(graph, costs, state.cluster, priced.stages)
    return replace(
        found,
        placement=known,
        stages=priced.stages,
        period_s=priced.period_s,
        latency_s=priced.latency_s,
        links_s=priced.links_s,
        loads=priced.loads,
        links=priced.links,
        origin=origin,
        pessimistic=pessimistic,
    )
