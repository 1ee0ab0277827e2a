"""The same model planned again for another cluster: with a device less, one more, or faster links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tvmpipe.passes.base import CompileState
from tvmpipe.passes.compress import Compress
from tvmpipe.passes.cost import Cost
from tvmpipe.passes.place import Place
from tvmpipe.targets.cluster import Cluster


def replan(state: CompileState, cluster: Cluster, pins: Mapping[str, str], time_limit_s: float) -> CompileState:
    """The state with the plan for `cluster`, and with the notes about that plan alone; a plan file does not hold.

    Raises InfeasibleError.
    """
    options = replace(state.options, pins=pins, plan_file=None, time_limit_s=time_limit_s)
    again = replace(state, cluster=cluster, options=options, notes=(), plan=None)
    for one in (Cost(), Place(), Compress()):
        again = one.apply(again)
    return again
