"""Speeds that have moved: by more than a fifth, for all of a while, and of whom."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.runtime import manifests
from tvmpipe.manifest import PlanEntry, Predicted
from tvmpipe.runtime.device.totals import StageCount
from tvmpipe.runtime.head.drift import Drift, Expected
from tvmpipe.runtime.head.replanner import Speeds
from tvmpipe.runtime.transport import deadlines

PERIOD_S = 0.1


def plan() -> PlanEntry:
    """Two devices that compute for 80 and 50 ms, and 20 ms on each link."""
    made = manifests.chain("a", "b").plan
    seconds = {"a": 0.08, "b": 0.05}
    stages = tuple(one.model_copy(update={"predicted_compute_s": seconds[one.device]}) for one in made.stages)
    links = tuple(link.model_copy(update={"predicted_s": 0.02}) for link in made.links)
    predicted = Predicted(period_s=PERIOD_S, latency_s=0.2)
    return made.model_copy(update={"stages": stages, "links": links, "predicted": predicted})


PLAN = plan()


class World:
    """A pipeline that runs as it is told, and looks each second."""

    def __init__(self) -> None:
        self.drift = Drift(30.0)
        self.now_s = 0.0
        self.answered = 0
        self.counts = {"main-s0": StageCount(), "main-s1": StageCount()}
        self.believed = Speeds()
        self.made_for = Speeds()
        self.plan = PLAN

    def run(
        self,
        seconds: int,
        compute: Mapping[str, float],
        *,
        period_s: float = PERIOD_S,
        receive: Mapping[str, float] | None = None,
        full: bool = True,
    ) -> Speeds | None:
        """For so long; `compute` and `receive` are seconds a sample of a and b. What was noticed, once it is."""
        for _ in range(seconds):
            samples = round(1 / period_s)
            self.now_s += 1
            self.answered += samples
            for device, stage in (("a", "main-s0"), ("b", "main-s1")):
                wait = (receive or {}).get(device, 0.0)
                more = StageCount(samples, samples * wait, samples * compute[device], 0.0)
                self.counts[stage] = self.counts[stage].plus(more)
            expected = Expected(self.plan, self.made_for, self.believed, PERIOD_S)
            found = self.drift.look(self.now_s, expected, self.counts, self.answered, full=full)
            if found is not None:
                self.believed = found
                return found
        return None


AS_PLANNED = {"a": 0.08, "b": 0.05}


def test_a_device_that_is_slower_for_half_a_minute() -> None:
    world = World()
    assert world.run(60, {"a": 0.09, "b": 0.043}) is None, "by less than a fifth"
    assert world.run(9, {"a": 0.16, "b": 0.05}) is None
    assert world.run(40, AS_PLANNED) is None, "not for long enough"
    found = world.run(40, {"a": 0.16, "b": 0.05})
    assert found is not None
    assert set(found.devices) == {"a"}
    assert found.devices["a"] == pytest.approx(2.0)
    assert world.run(60, {"a": 0.16, "b": 0.05}) is None, "that is believed now"
    back = world.run(40, AS_PLANNED)
    assert back is not None
    assert back.devices["a"] == pytest.approx(1.0)


def test_factors_are_of_what_was_planned_at_first() -> None:
    """A plan that was made for a device that is twice as slow counts on that."""
    world = World()
    world.made_for = world.believed = Speeds({"a": 2.0})
    assert world.run(60, AS_PLANNED) is None
    found = world.run(40, {"a": 0.16, "b": 0.05})
    assert found is not None
    assert found.devices["a"] == pytest.approx(4.0)


def test_a_link_that_everybody_waits_for() -> None:
    world = World()
    assert world.run(60, AS_PLANNED, period_s=0.25, full=False) is None, "nobody has more samples"
    busy = {"a": 0.08, "b": 0.055}
    assert world.run(60, busy, receive={"b": 0.3}) is None, "samples come as fast as planned"
    found = world.run(40, busy, period_s=0.2, receive={"a": 0.01, "b": 0.5})
    assert found is not None
    assert found.links == {("a", "b"): pytest.approx(10.0)}
    assert not found.devices


def test_the_link_to_the_head() -> None:
    found = World().run(40, AS_PLANNED, period_s=0.2, receive={"a": 0.01, "b": 0.02})
    assert found is not None
    assert found.links == {("b", "head"): pytest.approx(10.0)}


def test_a_new_plan_is_looked_at_for_as_long() -> None:
    world = World()
    assert world.run(25, {"a": 0.16, "b": 0.05}) is None
    world.plan = plan()
    assert world.run(29, {"a": 0.16, "b": 0.05}) is None
    assert world.run(5, {"a": 0.16, "b": 0.05}) is not None


def test_what_no_plan_uses_is_forgotten() -> None:
    world = World()
    world.believed = Speeds({"c": 3.0})
    assert world.run(int(deadlines.FORGET_SPEED_S) - 10, AS_PLANNED) is None
    found = world.run(60, AS_PLANNED)
    assert found is not None
    assert found.devices == {}
