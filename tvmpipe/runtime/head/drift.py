"""Notices that devices and links are not as fast as a plan counts on, from what the running pipeline tells.

A device's speed is what its stages take for a sample. Of links none tells how fast it is while it is not what everybody
waits for; where it is, its speed is the pipeline's: the pipeline is full, no device is busy, samples take longer than
planned, and the messages that wait the longest come over it. What has moved has done so in each third of a while, so
that a moment's hiccup does not count; what it is now, the last third says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tvmpipe.manifest import HEAD, PlanEntry
from tvmpipe.runtime.device.totals import StageCount
from tvmpipe.runtime.head.replanner import Speeds
from tvmpipe.runtime.transport import deadlines

MOVED = 0.2
"""A speed has moved when it is so much above or below what is believed."""

_PARTS = 3
_FEWEST = 3  # samples in each part of the while
_IDLE = 0.8  # of the time; a device that computes for less is not what everybody waits for


@dataclass(frozen=True)
class Expected:
    """What runs, and how fast it is thought to be.

    Attributes: `made_for` the speeds that the plan's figures are of, `believed` those that were measured last;
    `period_s` seconds between two results at these.
    """

    plan: PlanEntry
    made_for: Speeds
    believed: Speeds
    period_s: float


@dataclass(frozen=True)
class _Look:
    now_s: float
    answered: int
    full: bool
    counts: Mapping[str, StageCount]


@dataclass
class Drift:
    """Looks again and again, for `for_s` at one plan before it says anything. For one thread."""

    for_s: float
    _plan: PlanEntry | None = None
    _looks: deque[_Look] = field(default_factory=deque)
    _seen: dict[str, float] = field(default_factory=dict)  # when a device was last part of a plan

    def look(
        self, now_s: float, expected: Expected, counts: Mapping[str, StageCount], answered: int, *, full: bool
    ) -> Speeds | None:
        """Speeds that have moved and all others, once some have; `counts` only grow, and so does `answered`.

        `full` says that as many samples are under way as may be.
        """
        self._seen.update(dict.fromkeys(expected.plan.devices, now_s))
        if self._plan is not expected.plan or (self._looks and answered < self._looks[-1].answered):
            self._plan = expected.plan
            self._looks.clear()
        names = {stage.name for stage in expected.plan.stages}
        self._looks.append(_Look(now_s, answered, full, {name: counts[name] for name in names if name in counts}))
        if now_s - self._looks[0].now_s < self.for_s:
            return None
        while len(self._looks) > 2 and now_s - self._looks[1].now_s >= self.for_s:
            self._looks.popleft()
        parts = self._parts()
        devices = self._devices(expected, parts)
        links = {} if devices else self._links(expected, parts)
        kept = {
            name: factor
            for name, factor in expected.believed.devices.items()
            if now_s - self._seen.setdefault(name, now_s) < deadlines.FORGET_SPEED_S
        }
        if not devices and not links and len(kept) == len(expected.believed.devices):
            return None
        self._looks.clear()
        return Speeds({**kept, **devices}, {**expected.believed.links, **links})

    def _parts(self) -> list[tuple[_Look, _Look]]:
        """Beginning and end of each part of the while."""
        begin, length = self._looks[0].now_s, (self._looks[-1].now_s - self._looks[0].now_s) / _PARTS
        ends = [
            max((one for one in self._looks if one.now_s <= begin + n * length + 1e-9), key=lambda one: one.now_s)
            for n in range(1, _PARTS + 1)
        ]
        return list(zip([self._looks[0], *ends], ends, strict=False))

    def _devices(self, expected: Expected, parts: Sequence[tuple[_Look, _Look]]) -> dict[str, float]:
        """Devices whose speed has moved."""
        moved = {}
        for device in expected.plan.devices:
            stages = [
                stage for stage in expected.plan.stages if stage.device == device and stage.predicted_compute_s > 0
            ]

            def ratio(part: tuple[_Look, _Look]) -> float | None:
                planned = took = done = 0.0
                for stage in stages:  # noqa: B023  # it is called in this turn of the loop
                    if stage.name in part[0].counts and stage.name in part[1].counts:
                        more = part[1].counts[stage.name].minus(part[0].counts[stage.name])
                        done += more.samples
                        took += more.compute_s
                        planned += more.samples * stage.predicted_compute_s
                return took / planned if done >= _FEWEST and planned > 0 and took > 0 else None

            made = expected.made_for.devices.get(device, 1.0)
            believed = expected.believed.devices.get(device, 1.0)
            if _has_moved([found and found * made / believed for found in map(ratio, parts)]):
                found = ratio(parts[-1])
                assert found is not None
                moved[device] = found * made
        return moved

    def _links(self, expected: Expected, parts: Sequence[tuple[_Look, _Look]]) -> dict[tuple[str, str], float]:
        """The link that everybody waits for, where it is slower than believed."""
        if not all(look.full for look in self._looks) or not expected.period_s > 0:
            return {}
        periods = [_each(part, lambda look: look.now_s) for part in parts]
        if not _has_moved([period and period / expected.period_s for period in periods], slower=True):
            return {}
        last, period_s = parts[-1], periods[-1]
        assert period_s is not None
        waits: dict[str, float] = {}
        for device in expected.plan.devices:
            own = [stage.name for stage in expected.plan.stages if stage.device == device]
            busy = _each(last, lambda look: sum(look.counts[name].compute_s for name in own if name in look.counts))  # noqa: B023
            if busy is None or busy > _IDLE * period_s:
                return {}
            wait = _each(last, lambda look: sum(look.counts[name].receive_s for name in own if name in look.counts))  # noqa: B023
            waits[device] = wait or 0.0
        slowest = max(waits, key=lambda device: waits[device])
        receiver = slowest if waits[slowest] > period_s else HEAD
        into = [link for link in expected.plan.links if link.receiver == receiver and link.predicted_s > 0]
        if not into:
            return {}
        link = max(into, key=lambda one: one.predicted_s)
        ends = min(link.sender, link.receiver), max(link.sender, link.receiver)
        return {ends: period_s / link.predicted_s * expected.made_for.link(*ends)}


def _each(part: tuple[_Look, _Look], of: Callable[[_Look], float]) -> float | None:
    """How much more of something there is for each result, None where there are too few results."""
    results = part[1].answered - part[0].answered
    return (of(part[1]) - of(part[0])) / results if results >= _FEWEST else None


def _has_moved(ratios: Sequence[float | None], *, slower: bool = False) -> bool:
    """Whether all are above, or all below, what is believed."""
    known = [ratio for ratio in ratios if ratio is not None]
    if len(known) < len(ratios):
        return False
    return all(r > 1 + MOVED for r in known) or (not slower and all(r < 1 / (1 + MOVED) for r in known))
