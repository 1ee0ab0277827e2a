"""Who may be planned with, which plans are asked for, and whether a change to one pays.

A part of the state machine, as pure as that. Of an elastic pipeline the set of devices that are there changes; whenever
no plan was made for the present one, one is asked for. Where nothing can run that is urgent: it is made and opened.
Where something runs, a proposal is compared with it first: a change costs the time until the plan is ready, which is
spent with the old one, and a moment in which the pipeline drains. What is left of the horizon then has to gain more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tvmpipe.runtime.head.events import PlanFailed, PlanReady, Proposed
from tvmpipe.runtime.head.instructions import Compile, Instruction, Refused, Replan, Tell
from tvmpipe.runtime.head.replanner import Speeds
from tvmpipe.units import format_duration

BETTER = 0.95
"""Of what runs: estimates are no better than that, so that a smaller gain may be none."""


@dataclass(frozen=True)
class Running:
    """What a proposal is compared with: the figure of the plan that runs, None where nothing does or it must go; and
    how long the pipeline takes to drain."""

    figure_s: float | None
    drain_s: float


class Membership:
    """Attributes: `members` devices that plans may use, `leaving` those among them that are to be given back;
    `why_none` why there is no plan for the devices that are left."""

    def __init__(self, members: Iterable[str], planned_for: Iterable[Collection[str]], horizon_s: float) -> None:
        self.members = set(members)
        self.leaving: set[str] = set()
        self.why_none = ""
        self._everybody = set(self.members)
        self._horizon_s = horizon_s
        self._planned_for = {frozenset(devices) for devices in planned_for}
        self._asked: Replan | None = None
        self._numbers = 0

    @property
    def outsiders(self) -> set[str]:
        """Devices that were members once, or are to be given back."""
        return (self._everybody - self.members) | self.leaving

    def available(self, lost: Collection[str]) -> frozenset[str]:
        """Devices that can be planned with."""
        return frozenset(self.members - self.leaving).difference(lost)

    def join(self, device: str) -> None:
        """A device may be planned with from now on."""
        self.members.add(device)
        self._everybody.add(device)
        self.leaving.discard(device)

    def leave(self, device: str) -> None:
        """A device is given back."""
        self.members.discard(device)
        self.leaving.discard(device)

    def forget_plans(self) -> None:
        """Speeds have changed: for no devices the best plan is known any more."""
        self._planned_for.clear()

    def unplanned(self, lost: Collection[str], *, needed: bool) -> bool:
        """Whether a plan should be asked for: none is under way, and none was sought for the devices that are there.

        It is `needed` where what runs cannot go on, and no plan that is known can.
        """
        available = self.available(lost)
        return self._asked is None and (needed or (bool(available) and available not in self._planned_for))

    def ask(self, lost: Collection[str], speeds: Speeds, *, urgent: bool) -> list[Instruction]:
        """Ask for the best plan of the devices that are there, unless it is known that there is none."""
        present = tuple(sorted(self.available(lost)))
        if urgent and self._asked is not None and self._asked.urgent:
            return []  # its answer comes first: whoever makes plans looks who is there, too
        if not present:
            return self._refuse("no other device is left")
        if urgent and self.why_none and frozenset(present) in self._planned_for:
            return []
        self._numbers += 1
        self._asked = Replan(self._numbers, present, urgent, speeds)
        self.why_none = ""
        return [self._asked]

    def proposed(self, event: Proposed, figure_s: float, running: Running) -> list[Instruction]:
        """Whether to have a proposed plan compiled, said in a sentence; `figure_s` is its own."""
        asked = self._asked
        if asked is None or asked.number != event.number:
            return []
        who = f"a plan for {', '.join(asked.present)}"
        if running.figure_s is None:
            return [Tell(f"{who} is made: what runs needs a device that leaves"), Compile(event.number)]
        said = f"{who} takes {format_duration(figure_s)} instead of {format_duration(running.figure_s)}"
        if pays(running, figure_s, event.ready_s, self._horizon_s):
            ready = f"and is ready in about {format_duration(event.ready_s)}"
            return [Tell(f"{said}: it pays within {self._horizon_s:g} s, {ready}"), Compile(event.number)]
        self._done(asked)
        return [Tell(f"{said}: it does not pay within {self._horizon_s:g} s, and what runs goes on")]

    def ready(self, event: PlanReady, lost: Collection[str]) -> Speeds:
        """A plan was made, an urgent one of those that answered. Returns the speeds that it was made for."""
        asked = self._asked
        if asked is None or asked.number != event.number:
            return Speeds()
        self._done(asked)
        if asked.urgent:
            self._planned_for.add(self.available(lost))
        return asked.speeds

    def failed(self, event: PlanFailed) -> list[Instruction]:
        """There is no plan, or it could not be made: whoever was to leave stays."""
        asked = self._asked
        if asked is None or asked.number != event.number:
            return []
        self._done(asked)
        self.why_none = event.message
        told = Tell(f"there is no plan for {', '.join(asked.present)}: {event.message}")
        return [told, *self._refuse(event.message)]

    def _refuse(self, why: str) -> list[Instruction]:
        """Whoever was to leave stays."""
        refused: list[Instruction] = [Refused(device, why) for device in sorted(self.leaving)]
        self.leaving.clear()
        return refused

    def _done(self, asked: Replan) -> None:
        self._asked = None
        self._planned_for.add(frozenset(asked.present))


def pays(running: Running, figure_s: float, ready_s: float, horizon_s: float) -> bool:
    """Whether more is done within the horizon with a plan that is ready after so long than without it."""
    assert running.figure_s is not None
    if figure_s >= BETTER * running.figure_s:
        return False
    left_s = horizon_s - ready_s
    return (left_s - running.drain_s) * running.figure_s > left_s * figure_s and left_s > 0
