"""Worlds of devices that lack files, have some, and do not all reach each other: all arrives, most of it once."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.runtime.head.delivery.schedule import Order, Schedule
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.chunks import Chunk


@dataclass
class World:
    """What is under way, by when it was ordered, and what has happened."""

    schedule: Schedule
    devices: list[str]
    unreached: set[tuple[str, str]] = field(default_factory=set)
    now: float = 0.0
    under_way: list[Order] = field(default_factory=list)
    sent: Counter[Chunk] = field(default_factory=Counter)

    def order(self) -> None:
        for order in self.schedule.next(self.now, self.devices):
            self.under_way.append(order)
            if order.source is None:
                self.sent[order.chunk] += 1

    def arrive(self, place: int) -> None:
        order = self.under_way.pop(place)
        if order.source is not None and (order.device, order.source) in self.unreached:
            self.schedule.failed(order.device, order.chunk, order.source)
            return
        self.schedule.have(order.device, order.chunk, self.now)


names = st.integers(1, 5).map(lambda count: [f"d{number}" for number in range(count)])


@st.composite
def worlds(draw: st.DrawFn, *, whole: bool) -> tuple[World, dict[str, set[Chunk]], dict[str, set[Chunk]]]:
    """With `whole`, every device serves and reaches every other one."""
    devices = draw(names)
    chunks = [
        Chunk(file, number) for file, count in enumerate(draw(st.lists(st.integers(0, 6)))) for number in range(count)
    ]
    sets = st.sets(st.sampled_from(chunks)) if chunks else st.just(set[Chunk]())
    lacks = {name: draw(sets) for name in devices}
    has = {name: draw(sets) - lacks[name] for name in devices}
    serving = devices if whole else [name for name in devices if draw(st.booleans())]
    pairs = [(one, other) for one in devices for other in devices if one != other]
    unreached = set() if whole or not pairs else draw(st.sets(st.sampled_from(pairs)))
    schedule = Schedule({name: sorted(wanted) for name, wanted in lacks.items()}, has, serving)
    return World(schedule, devices, unreached), lacks, has


@given(worlds(whole=True), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_head_sends_each_chunk_once(
    made: tuple[World, dict[str, set[Chunk]], dict[str, set[Chunk]]], choose: random.Random
) -> None:
    world, lacks, has = made
    world.order()
    while world.under_way:
        world.now += 0.01
        world.arrive(choose.randrange(len(world.under_way)))
        world.order()
    assert not any(world.schedule.lacking(name) for name in world.devices)
    there = set().union(*has.values())
    assert world.sent == Counter(set().union(*lacks.values()) - there)


@given(worlds(whole=False), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_everything_arrives_whatever_breaks(
    made: tuple[World, dict[str, set[Chunk]], dict[str, set[Chunk]]], choose: random.Random
) -> None:
    world, _, _ = made
    world.order()
    for _ in range(10_000):
        if not world.under_way:
            break
        world.now += choose.choice((0.01, 0.2, 2.0))
        if choose.random() < 0.05:
            name = choose.choice(world.devices)
            world.schedule.lost(name)
            world.under_way = [order for order in world.under_way if order.device != name]
        else:
            world.arrive(choose.randrange(len(world.under_way)))
        world.order()
    assert not any(world.schedule.lacking(name) for name in world.devices)


def test_what_a_device_has_is_not_sent_to_it_again() -> None:
    schedule = Schedule({"a": [Chunk(0, 0)]}, {}, ["a"])
    assert [order.chunk for order in schedule.next(0.0, ["a"])] == [Chunk(0, 0)]
    schedule.have("a", Chunk(0, 0), 0.1)
    schedule.have("a", Chunk(0, 0), 0.2)
    schedule.lost("a")
    assert list(schedule.next(1.0, ["a"])) == []


def test_a_device_that_is_quick_gets_more_at_once() -> None:
    schedule = Schedule({"a": [Chunk(0, number) for number in range(1000)]}, {}, [])
    under_way, most = list(schedule.next(0.0, ["a"])), 0
    for number in range(100):
        schedule.have("a", under_way.pop(0).chunk, 0.01 * number)
        under_way += schedule.next(0.01 * number, ["a"])
        most = max(most, len(under_way))
    assert most == 24
    now = 1.0
    while under_way:  # and one that has become slow gets less
        now += 2.0
        schedule.have("a", under_way.pop(0).chunk, now)
        under_way += schedule.next(now, ["a"])
        if len(under_way) == 1:
            break
    assert len(under_way) == 1


def test_what_a_slow_device_is_being_sent_comes_from_the_head_when_nothing_else_is_left() -> None:
    schedule = Schedule({"slow": [Chunk(0, 0)], "quick": [Chunk(0, 0)]}, {}, ["slow", "quick"])
    assert [(order.device, order.source) for order in schedule.next(0.0, ["slow", "quick"])] == [("slow", None)]
    assert list(schedule.next(deadlines.HEAD_CHUNK_S, ["quick"])) == []
    late = deadlines.HEAD_CHUNK_S + 0.1
    assert [(order.device, order.source) for order in schedule.next(late, ["quick"])] == [("quick", None)]
