"""What an exact engine is asked about schedules of one sample, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.latency.schedule import Timetable


@dataclass(frozen=True)
class Exact:
    """A placement with its timetable (None: none within the cutoff was found), and what no schedule is shorter than."""

    device_of: list[int] | None
    table: Timetable | None
    bound_s: float


@dataclass(frozen=True)
class Task:
    """What an engine is asked: the best schedule of at most `cutoff_s` that is found within `limit_s`.

    `hint` is a schedule to start from. With `free`, only those nodes may change device or order; the others keep the
    hint's devices and their order among themselves, and the bound holds for that only. `threads` 1 is deterministic
    as long as the limit does not end it. Where nothing of at most `cutoff_s` exists, `Exact.bound_s` is above it.
    """

    inst: Instance
    cutoff_s: float
    limit_s: float
    hint: tuple[list[int], Timetable] | None = None
    free: frozenset[int] | None = None
    threads: int = 1
    seed: int = 0

    @property
    def narrowed(self) -> Instance:
        """The instance with every node that is not `free` on the hint's device."""
        if self.hint is None or self.free is None:
            return self.inst
        placed = self.hint[0]
        return self.inst.pinned({n: placed[n] for n in range(self.inst.node_count) if n not in self.free})
