"""The plans that may be opened, and which is best for the devices that are there, as fast as they turned out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from tvmpipe.manifest import PlanEntry
from tvmpipe.runtime.head.replanner import Speeds

LATENCY = "latency"
"""The objective whose figure is the time of one sample; that of all others is the time between two."""


class KnownPlans:
    """Those of a bundle, of which the first is the one to start with, and those that were made since.

    Attributes: `speeds` what devices and links are measured to take, over what was planned for them.
    """

    def __init__(self, plans: Sequence[PlanEntry], objective: str) -> None:
        self.speeds = Speeds()
        self.entries: list[PlanEntry] = []
        self._objective = objective
        self._made_for: list[Speeds] = []
        self._first_stages: list[dict[str, str]] = []
        for plan in plans:
            self.add(plan, Speeds())

    def add(self, plan: PlanEntry, speeds: Speeds) -> int:
        """Take in a plan whose figures are of these speeds. Returns its number."""
        self.entries.append(plan)
        self._made_for.append(speeds)
        self._first_stages.append({stage.device: stage.name for stage in reversed(plan.stages)})
        return len(self.entries) - 1

    def devices(self, number: int) -> tuple[str, ...]:
        """Those that a plan needs."""
        return self.entries[number].devices

    def first_stage(self, number: int, device: str) -> str | None:
        """The first stage that a plan has on a device."""
        return self._first_stages[number].get(device)

    def most_stages(self, number: int) -> int:
        """How many stages a batch passes, of the bucket that has the most."""
        stages = self.entries[number].stages
        return max(Counter(stage.bucket for stage in stages if stage.turn.place == 0).values(), default=0)

    def best(self, without: Collection[str]) -> int | None:
        """The best of those that need none of these devices; of equal ones the first. None where there is none."""
        usable = (n for n, plan in enumerate(self.entries) if not set(plan.devices).intersection(without))
        return min(usable, key=self.figure, default=None)

    def figure(self, number: int) -> float:
        """What the objective makes as small as it can, in seconds, at the speeds that are measured."""
        plan = self.entries[number]
        if self._made_for[number] == self.speeds:
            return self.predicted(plan.predicted.period_s, plan.predicted.latency_s)
        ratios = [self._ratio(number, stage.device) for stage in plan.stages]
        stage_s = [stage.predicted_compute_s / stage.turn.of if not stage.bucket else 0.0 for stage in plan.stages]
        link_ratios = [self._link_ratio(number, link.sender, link.receiver) for link in plan.links]
        if self._objective == LATENCY:
            more_s = sum(seconds * (ratio - 1) for seconds, ratio in zip(stage_s, ratios, strict=True))
            more_s += sum(link.predicted_s * (r - 1) for link, r in zip(plan.links, link_ratios, strict=True))
            return max(0.0, plan.predicted.latency_s + more_s)
        busy: Counter[str] = Counter()
        slowed: Counter[str] = Counter()
        for stage, seconds, ratio in zip(plan.stages, stage_s, ratios, strict=True):
            busy[stage.device] += seconds  # type: ignore[assignment]
            slowed[stage.device] += seconds * ratio  # type: ignore[assignment]
        before = [*busy.values(), *(link.predicted_s for link in plan.links)]
        after = [*slowed.values(), *(link.predicted_s * r for link, r in zip(plan.links, link_ratios, strict=True))]
        slowest = max(before, default=0.0)
        return plan.predicted.period_s * (max(after) / slowest if slowest else 1.0)

    def predicted(self, period_s: float, latency_s: float) -> float:
        """The figure of a plan with this period and latency."""
        return latency_s if self._objective == LATENCY else period_s

    def _ratio(self, number: int, device: str) -> float:
        return self.speeds.devices.get(device, 1.0) / self._made_for[number].devices.get(device, 1.0)

    def _link_ratio(self, number: int, sender: str, receiver: str) -> float:
        return self.speeds.link(sender, receiver) / self._made_for[number].link(sender, receiver)
