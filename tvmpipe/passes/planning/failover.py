"""Plans for the loss of a device, made beforehand: nothing has to be placed or compiled when it happens."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvmpipe.errors import InfeasibleError
from tvmpipe.passes.base import CompileState, Spare, required
from tvmpipe.passes.graph.replicas import without
from tvmpipe.passes.planning.plan import Plan
from tvmpipe.passes.planning.replan import replan


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
                known = without(plan.placement, lost)
                after = replan(state, state.cluster.without(lost), pins, share_s, known, "fewer turns")
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
