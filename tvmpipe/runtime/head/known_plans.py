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

    def made_for(self, number: int) -> Speeds:
        """The speeds that a plan's figures are of."""
        return self._made_for[number]

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
        return self._latency_s(number) if self._objective == LATENCY else self.period_s(number)

    def period_s(self, number: int) -> float:
        """Seconds between two results at the speeds that are measured."""
        plan = self.entries[number]
        if self._made_for[number] == self.speeds:
            return plan.predicted.period_s
        before: Counter[str] = Counter()
        after: Counter[str] = Counter()
        for device, seconds, ratio in self._stage_s(number):
            before[device] += seconds  # type: ignore[assignment]
            after[device] += seconds * ratio  # type: ignore[assignment]
        links = self._link_s(number)
        slowest = max([*before.values(), *(seconds for seconds, _ in links)], default=0.0)
        now = max([*after.values(), *(seconds * ratio for seconds, ratio in links)], default=0.0)
        return plan.predicted.period_s * (now / slowest if slowest else 1.0)

    def _latency_s(self, number: int) -> float:
        parts = [(seconds, ratio) for _, seconds, ratio in self._stage_s(number)] + self._link_s(number)
        more_s = sum(seconds * (ratio - 1) for seconds, ratio in parts)
        return max(0.0, self.entries[number].predicted.latency_s + more_s)

    def _stage_s(self, number: int) -> list[tuple[str, float, float]]:
        """Device, predicted seconds a sample, and how many times more it takes now, of stages of the largest bucket."""
        stages = [stage for stage in self.entries[number].stages if not stage.bucket]
        return [(one.device, one.predicted_compute_s / one.turn.of, self._ratio(number, one.device)) for one in stages]

    def _link_s(self, number: int) -> list[tuple[float, float]]:
        """Predicted seconds a sample of each link, and how many times more it takes now."""
        then = self._made_for[number]
        return [
            (link.predicted_s, self.speeds.link(*ends) / then.link(*ends))
            for link in self.entries[number].links
            for ends in [(link.sender, link.receiver)]
        ]

    def predicted(self, period_s: float, latency_s: float) -> float:
        """The figure of a plan with this period and latency."""
        return latency_s if self._objective == LATENCY else period_s

    def _ratio(self, number: int, device: str) -> float:
        return self.speeds.devices.get(device, 1.0) / self._made_for[number].devices.get(device, 1.0)
