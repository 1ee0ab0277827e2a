"""What an exact engine answers."""

from __future__ import annotations

from dataclasses import dataclass

from tvmpipe.passes.placement.makespan_schedule import Timetable


@dataclass(frozen=True)
class Exact:
    """A placement with its timetable (None: none within the cutoff was found), and what no schedule is shorter than."""

    device_of: list[int] | None
    table: Timetable | None
    bound_s: float
