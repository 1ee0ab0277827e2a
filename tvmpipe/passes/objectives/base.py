"""What an objective says, and what it searches plans with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tvmpipe.passes.placement.limits import Deadline, Limits, Listener, Progress
from tvmpipe.passes.placement.problem import Problem, Solution

Planner = Callable[[Problem, Limits, Listener | None], Solution]
"""The best placement that is found within limits. Raises Infeasible when none fits."""

GAP = 5e-3
"""Plans closer than this to the bound count as optimal; estimates are not that good."""

Variants = Callable[[Problem, Solution, Deadline], Iterator[Sequence[int]]]
"""Placements close to a solution that may be worth more than it once stages are counted: node -> device."""


class Figures(Protocol):
    """Anything that has both figures, in seconds: a price, or a plan."""

    @property
    def period_s(self) -> float:
        """Seconds between results in a full pipeline."""
        ...

    @property
    def latency_s(self) -> float:
        """Seconds of one sample alone."""
        ...


class Search(Protocol):
    """A search for a plan of `problem` until `deadline`: placements that are offered are priced as they would run.

    `replicate` says whether devices may take samples in turn.
    """

    problem: Problem
    deadline: Deadline
    replicate: bool

    def hear(self, progress: Progress) -> None:
        """A planner says how it is getting on."""
        ...

    def ask(
        self, kind: str, planner: Planner, problem: Problem, seconds: float, variants: Variants | None = None
    ) -> float | None:
        """Offer what a planner finds, and its variants; the bound that it proves for the problem, None for none.

        It is asked again, for smaller memories, while what it finds does not fit. `kind` goes before the planner's own
        name in the plan's origin.
        """
        ...

    def offer_groups(self, origin: str, group_of: Sequence[int], groups: Sequence[Sequence[int]]) -> None:
        """Offer a placement on groups of devices that take samples in turn: node -> group."""
        ...


@dataclass(frozen=True)
class Objective:
    """What a plan is to make as small as it can.

    Attributes: `name` as on the command line and in manifests; `figure` what its figure is called in sentences;
    `replicates` whether devices that take samples in turn can make the figure smaller; `ends_stages_early` whether a
    stage should end where another device waits for it; `of` the figure, in seconds; `ranked_by` what candidates are
    compared by, in seconds, given how often samples come back to a device that they have been on; `model` the placement
    problem whose figure is the objective's, made of one in the model "overlapped"; `search` offers placements to a
    search and returns a bound on the figure, None where nothing is proven.
    """

    name: str
    figure: str
    replicates: bool
    ends_stages_early: bool
    of: Callable[[Figures], float]
    ranked_by: Callable[[Figures, int], float]
    model: Callable[[Problem], Problem]
    search: Callable[[Search], float | None]
