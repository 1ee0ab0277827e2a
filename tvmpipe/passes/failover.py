"""Plans for the loss of a device, made beforehand: nothing has to be placed or compiled when it happens."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvmpipe.errors import InfeasibleError
from tvmpipe.passes.base import CompileState, Spare, required
from tvmpipe.passes.compress import Compress
from tvmpipe.passes.plan import Plan
from tvmpipe.passes.price import price
from tvmpipe.passes.replan import replan
from tvmpipe.passes.turns import without


@dataclass(frozen=True)
class Failover:
    """With `options.failover`, place again without each device that the plan uses; fill in `spares`.

    Pins to the lost device and a plan file do not hold without it. Where others can take the lost device's turns, that
    is the spare plan unless the search finds a better one. Together these searches get as much time as the plan's own.
    A loss that no plan survives becomes a note.
    """

    name: str = "failover"

    def apply(self, state: CompileState) -> CompileState:
        if not state.options.failover:
            return state
        plan: Plan = required(state.plan, "plan")
        spares, notes = [], list(state.notes)
        for lost in plan.loads:
            if len(state.cluster.devices) == 1:
                notes.append(f"without {lost} no device is left")
                continue
            try:
                pins = {pattern: device for pattern, device in state.options.pins.items() if device != lost}
                share_s = state.options.time_limit_s / len(plan.loads)
                after = _or_fewer_turns(state, replan(state, state.cluster.without(lost), pins, share_s), lost)
            except InfeasibleError as error:
                notes.append(f"without {lost} the model cannot run: {error}")
                continue
            spares.append(Spare(lost, required(after.plan, "plan")))
            notes += [f"without {lost}: {note}" for note in after.notes if note not in state.notes]
        return replace(state, spares=tuple(spares), notes=tuple(notes))

    def detail(self, state: CompileState) -> str:
        """What progress says of the work to come."""
        plan: Plan = required(state.plan, "plan")
        return f"plans without each of {', '.join(plan.loads)}" if state.options.failover else ""


def _or_fewer_turns(state: CompileState, after: CompileState, lost: str) -> CompileState:
    """What was found without a device, or the old plan with its turns taken by others where that is as good."""
    found: Plan = required(after.plan, "plan")
    rest = without(required(state.plan, "plan").placement, lost)
    if rest is None:
        return after
    priced = price(required(after.graph, "graph"), required(after.costs, "costs"), after.cluster, rest, found.objective)
    if priced.missing_bytes:
        return after
    fewer = replace(
        found,
        placement=rest,
        stages=priced.stages,
        period_s=priced.period_s,
        latency_s=priced.latency_s,
        loads=priced.loads,
        links=priced.links,
        bound_s=None,
        origin="fewer turns",
    )
    tried = Compress().apply(replace(after, plan=fewer, notes=()))
    return tried if required(tried.plan, "plan").value_s <= found.value_s else after
