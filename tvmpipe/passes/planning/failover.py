"""Plans for the loss of a device, made beforehand: nothing has to be placed or compiled when it happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvmpipe.errors import InfeasibleError
from tvmpipe.passes.graph.replicas import Placement, without
from tvmpipe.passes.planning.plan import Plan


@dataclass(frozen=True)
class Spare:
    """What to run when the device `lost` is gone: a plan without it."""

    lost: str
    plan: Plan


PlanWithout = Callable[[str, float, Placement | None], tuple[Plan, list[str]]]
"""A lost device, seconds to search, and a placement that can run without it, if there is one -> a plan and notes."""


def spare_plans(
    plan: Plan, devices: int, time_limit_s: float, plan_without: PlanWithout
) -> tuple[tuple[Spare, ...], list[str]]:
    """A plan without each of the devices that `plan` uses, of so many in the cluster, and sentences for the report.

    Where others can take the lost device's turns, that is the spare plan unless the search finds a better one. Together
    these searches get `time_limit_s`. A loss that no plan survives becomes a sentence.
    """
    spares, notes = [], []
    for lost in plan.loads:
        if devices == 1:
            notes.append(f"without {lost} no device is left")
            continue
        try:
            after, said = plan_without(lost, time_limit_s / len(plan.loads), without(plan.placement, lost))
        except InfeasibleError as error:
            notes.append(f"without {lost} the model cannot run: {error}")
            continue
        spares.append(Spare(lost, after))
        notes += [f"without {lost}: {note}" for note in said]
    return tuple(spares), notes
