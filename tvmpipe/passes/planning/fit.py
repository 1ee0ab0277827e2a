"""Plan again where compiled stages take more memory than the plan counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tvmpipe.errors import InfeasibleError
from tvmpipe.passes.backend.lower import Lower
from tvmpipe.passes.backend.partition import Partition
from tvmpipe.passes.backend.tune import Tune
from tvmpipe.passes.base import CompileState, required
from tvmpipe.passes.planning.compression import Compress
from tvmpipe.passes.planning.evaluate import price_stages
from tvmpipe.passes.planning.failover import Failover
from tvmpipe.passes.planning.place import Place
from tvmpipe.passes.planning.plan import Plan, explain_missing

_ROUNDS = 3


@dataclass(frozen=True)
class Fit:
    """Check that what TVM allocates fits the devices; place, cut and compile again for smaller memories if it does not.

    Placements are searched by a count of what is alive at a time; TVM's plan is known only of compiled stages. What it
    takes beyond the count is kept free in the next search, which gets as much time as the first. A spare plan that
    still does not fit becomes a note.

    Raises InfeasibleError where the plan does not fit, at once where a plan file says what it is.
    """

    name: str = "fit"

    def apply(self, state: CompileState) -> CompileState:
        reserved: dict[str, int] = {}
        for _ in range(_ROUNDS):
            if state.options.plan_file is not None or not any(plan.missing_bytes for plan in _plans(state)):
                break
            reserved = _beyond_the_count(state, reserved)
            try:
                state = _again(state, reserved)
            except InfeasibleError:
                break
        plan: Plan = required(state.plan, "plan")
        if plan.missing_bytes:
            whose = "the plan file" if state.options.plan_file is not None else "the plan"
            raise InfeasibleError(f"compiled, {whose} takes more memory than there is: {explain_missing(plan.loads)}")
        return _without_what_does_not_fit(state)


def _plans(state: CompileState) -> Sequence[Plan]:
    return [required(state.plan, "plan"), *(spare.plan for spare in state.spares)]


def _beyond_the_count(state: CompileState, known: Mapping[str, int]) -> dict[str, int]:
    """For each device the most bytes that a plan takes beyond what `price_stages` counts, and no less than `known`."""
    graph, costs = required(state.graph, "graph"), required(state.costs, "costs")
    beyond = dict(known)
    for plan in _plans(state):
        counted = price_stages(graph, costs, state.cluster, plan.stages).loads
        for device, load in plan.loads.items():
            beyond[device] = max(beyond.get(device, 0), load.held_bytes - counted[device].held_bytes)
    return beyond


def _again(state: CompileState, reserved: Mapping[str, int]) -> CompileState:
    smaller = replace(
        state.cluster,
        devices=tuple(
            device
            if device.memory_bytes is None
            else replace(device, memory_bytes=max(0, device.memory_bytes - reserved.get(device.name, 0)))
            for device in state.cluster.devices
        ),
    )
    again = replace(required(state.unplanned, "state before its plan"), cluster=smaller, tell=state.tell)
    for one in (Place(), Compress(), Failover(), Partition(), Tune()):
        again = one.apply(again)
    return Lower().apply(replace(again, cluster=state.cluster))


def _without_what_does_not_fit(state: CompileState) -> CompileState:
    notes = (
        f"without {spare.lost} the model cannot run: {explain_missing(spare.plan.loads)}"
        for spare in state.spares
        if spare.plan.missing_bytes
    )
    fitting = tuple(spare for spare in state.spares if not spare.plan.missing_bytes)
    stages = (*state.stages, *(stage for spare in fitting for stage in spare.stages))
    used = {name for stage in stages for name in stage.hosted.values()}
    libraries = tuple(made for made in state.libraries if made.stage in used)
    return replace(state, spares=fitting, libraries=libraries, notes=(*state.notes, *notes))
