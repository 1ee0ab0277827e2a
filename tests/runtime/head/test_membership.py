"""Plans on demand: what is asked for when devices come and go, and what a change has to gain."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime import manifests
from tvmpipe.manifest import PlanEntry, Predicted
from tvmpipe.runtime.head import events
from tvmpipe.runtime.head import instructions as do
from tvmpipe.runtime.head.events import Event
from tvmpipe.runtime.head.instructions import Instruction
from tvmpipe.runtime.head.membership import Running, pays
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.head.state_machine import StateMachine, replay
from tvmpipe.runtime.transport import deadlines

CHAIN = manifests.chain("a", "b", "c")
LAST = 3


def plan_for(*devices: str, period_s: float = 1.0) -> PlanEntry:
    """A chain over these devices, made where the bundle runs."""
    made = manifests.linked(manifests.chain_plan("+" + "".join(devices), devices, LAST), LAST)
    return made.model_copy(update={"predicted": Predicted(period_s=period_s, latency_s=period_s)})


def running(**options: object) -> StateMachine:
    machine = StateMachine(CHAIN, Settings(failover=True, elastic=True, **options))  # type: ignore[arg-type]
    machine.start()
    machine.handle(events.Opened(machine.epoch, 0.0))
    return machine


def tick(machine: StateMachine, now: float) -> list[Instruction]:
    """A look at the clock, all devices of the plan having been heard."""
    for name in "abcde":
        machine.handle(events.Seen(machine.epoch, name, None, now))
    return machine.handle(events.Tick(now))


def replans(instructions: list[Instruction]) -> list[do.Replan]:
    return [one for one in instructions if isinstance(one, do.Replan)]


def test_two_losses_have_a_plan_made_at_once() -> None:
    machine = running()
    machine.handle(events.Submitted(0, 0.0))
    machine.handle(events.DeviceLost(1, "a", "gone", 0.0))
    done = machine.handle(events.DeviceLost(2, "b", "gone too", 0.1))
    assert done == [do.Replan(1, ("c",), True), do.Probe(("a", "b"))]
    assert machine.phase == "waiting"
    assert machine.handle(events.PlanReady(1, plan_for("c"), 0.2)) == [do.Open(4, 4)]
    assert machine.handle(events.Opened(4, 0.3)) == [do.Feed(4, 0, (0,))]
    assert not replans(tick(machine, 10.0)), "the plan for what is there has been made"


def test_who_is_missing_too_is_found_while_a_plan_is_made() -> None:
    machine = running()
    machine.handle(events.DeviceLost(1, "a", "gone", 0.0))
    machine.handle(events.DeviceLost(2, "b", "gone", 0.0))
    assert machine.handle(events.Missing("c", "it does not answer", 0.1)) == [do.Probe(("a", "b", "c"))]
    told = machine.handle(events.PlanFailed(1, "no device is left", 0.2))
    assert [type(one) for one in told] == [do.Tell]
    assert machine.handle(events.Returned("b", 1.0)) == [do.Probe(("a", "c")), do.Replan(2, ("b",), True)]
    assert machine.handle(events.PlanReady(2, plan_for("b"), 1.1))[0] == do.Open(machine.epoch, 4)


def test_why_there_is_no_plan_is_said_when_the_time_is_over() -> None:
    machine = running(recover_s=5.0)
    machine.handle(events.Submitted(0, 0.0))
    machine.handle(events.DeviceLost(1, "a", "gone", 0.0))
    machine.handle(events.DeviceLost(2, "b", "gone", 0.0))
    machine.handle(events.PlanFailed(1, "c misses 8 bytes", 0.2))
    assert machine.handle(events.Tick(4.9)) == []
    (failed,) = machine.handle(events.Tick(5.1))
    assert isinstance(failed, do.Fail)
    assert failed.failure.message == (
        "gone; nothing could run again within 5 s, as there is no plan for the devices that are left: c misses 8 bytes"
    )


def test_a_device_that_joins_is_taken_where_it_pays() -> None:
    machine = running()
    assert machine.handle(events.Joined("d", 0.0)) == []
    assert tick(machine, 1.0) == [], "it has to stay for a while"
    assert tick(machine, 3.0) == [do.Replan(1, ("a", "b", "c", "d"), False)]
    told, compiled = machine.handle(events.Proposed(1, 0.5, 2.0, 10.0, 4.0))
    assert compiled == do.Compile(1)
    assert told == do.Tell(
        "a plan for a, b, c, d takes 500.00 ms instead of 1.00 s: it pays within 60 s, and is ready in about 10.00 s"
    )
    machine.handle(events.Submitted(0, 4.0))
    assert machine.handle(events.PlanReady(1, plan_for("a", "b", "c", "d", period_s=0.5), 14.0)) == []
    assert tick(machine, 14.1) == [do.Prepare(2, 4)]
    assert machine.handle(events.Prepared(2, 15.0)) == [], "what is under way is waited for"
    assert machine.handle(events.Arrived(1, 0, (LAST,), 15.1)) == [do.Answer(0, 0, 0), do.Activate(2)]
    assert tick(machine, 20.0) == []


def test_what_does_not_pay_is_not_done_and_not_asked_again() -> None:
    machine = running()
    machine.handle(events.Joined("d", 0.0))
    tick(machine, 3.0)
    (told,) = machine.handle(events.Proposed(1, 0.99, 2.0, 1.0, 4.0))
    assert isinstance(told, do.Tell)
    assert "does not pay within 60 s" in told.sentence
    assert tick(machine, 10.0) == []


@pytest.mark.parametrize(
    ("figure_s", "ready_s", "drain_s", "expected"),
    [(0.5, 10, 0, True), (0.96, 0, 0, False), (0.5, 61, 0, False), (0.9, 50, 0.5, True), (0.9, 50, 2, False)],
)
def test_a_change_pays_when_more_is_done_within_the_horizon(
    figure_s: float, ready_s: float, drain_s: float, expected: bool
) -> None:
    assert pays(Running(1.0, drain_s), figure_s, ready_s, 60.0) == expected


def test_a_device_that_is_to_leave_is_given_back_when_nothing_needs_it() -> None:
    machine = running()
    machine.handle(events.Submitted(0, 0.0))
    assert machine.handle(events.Leaving("b", 0.0)) == []
    assert tick(machine, 0.1) == [do.Prepare(2, 2)], "the plan for its loss, at once"
    machine.handle(events.Prepared(2, 0.2))
    assert machine.handle(events.Arrived(1, 0, (LAST,), 0.3)) == [do.Answer(0, 0, 0), do.Activate(2), do.GiveBack("b")]
    assert tick(machine, 10.0) == [], "it is used no more"
    machine.handle(events.DeviceLost(2, "a", "gone", 11.0))
    assert machine.phase == "waiting"
    machine.handle(events.Joined("b", 11.1))
    assert machine.phase == "opening"


def test_a_plan_without_the_one_that_leaves_is_made_whatever_it_gains() -> None:
    machine = running()
    machine.handle(events.Leaving("b", 0.0))
    machine.handle(events.Leaving("c", 0.0))
    assert tick(machine, 0.1) == [do.Replan(1, ("a",), False)]
    assert machine.handle(events.Proposed(1, 9.0, 9.0, 100.0, 1.0))[1:] == [do.Compile(1)]
    machine.handle(events.PlanReady(1, plan_for("a", period_s=9.0), 2.0))
    assert tick(machine, 2.1) == [do.Prepare(2, 4)]
    assert machine.handle(events.Prepared(2, 3.0)) == [do.Activate(2), do.GiveBack("b"), do.GiveBack("c")]


def test_a_device_that_nothing_works_without_stays() -> None:
    machine = running()
    machine.handle(events.Leaving("b", 0.0))
    machine.handle(events.Leaving("c", 0.0))
    tick(machine, 0.1)
    done = machine.handle(events.PlanFailed(1, "a misses 8 bytes", 1.0))
    assert done[1:] == [do.Refused("b", "a misses 8 bytes"), do.Refused("c", "a misses 8 bytes")]
    assert tick(machine, 10.0) == []


def test_speeds_that_have_moved_have_plans_made_again() -> None:
    machine = running()
    (told,) = machine.handle(events.Measured((("a", 2.0),), (("a", "b", 1.5),), 1.0))
    assert told == do.Tell(
        "what was planned for is no more: a takes 2.00 times, the link between a and b takes 1.50 times as long"
    )
    (asked,) = replans(tick(machine, 1.1))
    assert asked.speeds.devices == {"a": 2.0}
    assert asked.speeds.link("b", "a") == 1.5


def test_a_plan_may_need_more_batches_under_way() -> None:
    machine = running(max_batches=4, widens=True)
    machine.handle(events.DeviceLost(1, "a", "gone", 0.0))
    machine.handle(events.DeviceLost(2, "b", "gone", 0.0))
    machine.handle(events.PlanReady(1, plan_for("c").model_copy(update={"inflight": 6}), 0.2))
    assert machine.handle(events.Opened(machine.epoch, 0.5)) == [do.Widen(6)]
    for sample in range(7):
        machine.handle(events.Submitted(sample, 1.0))
    assert machine.under_way == 6


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 3), faults=st.floats(0, 0.5))
def test_whoever_comes_and_goes_every_sample_is_answered_once(seed: int, batch: int, faults: float) -> None:
    """A world of five devices in which several are lost, join and leave at a time, and plans are made or not.

    At its end all that are members come back and stay, and plans are made.
    """
    choose = random.Random(seed)
    machine = StateMachine(CHAIN, Settings(batch=batch, max_batches=3, failover=True, elastic=True, recover_s=1e9))
    log: list[Event] = []
    done: list[list[Instruction]] = []
    wires: list[Event] = []
    outcomes: Counter[int] = Counter()
    asked: dict[int, do.Replan] = {}
    under_way: set[int] = set()
    given_back: set[str] = set()
    clock, ending = 0.0, False
    wanted: tuple[str, ...] = ()

    def make(one: do.Replan) -> Event:
        if not ending and choose.random() < faults:
            return events.PlanFailed(one.number, "no", clock)
        devices = choose.sample(one.present, choose.randint(1, len(one.present)))
        return events.PlanReady(one.number, plan_for(*devices, period_s=choose.random()), clock)

    def carry_out(instructions: list[Instruction]) -> None:
        nonlocal wanted
        done.append(instructions)
        for one in instructions:
            if isinstance(one, do.Feed):
                under_way.update(one.samples)
                wires.append(events.Arrived(one.epoch, one.batch, (LAST,), clock))
            elif isinstance(one, do.Open):
                wires.append(events.Opened(one.epoch, clock))
            elif isinstance(one, do.Prepare):
                unready = events.Unprepared(one.epoch, choose.choice("abcde"), "no", choose.random() < 0.5, clock)
                wires.append(unready if not ending and choose.random() < 0.3 else events.Prepared(one.epoch, clock))
            elif isinstance(one, do.Activate):
                assert not under_way, "nothing is left behind in what ran before"
            elif isinstance(one, do.Probe):
                wanted = one.devices
            elif isinstance(one, do.Replan):
                asked[one.number] = one
                assert not given_back.intersection(one.present)
                period_s, ready_s = 2 * choose.random(), 90 * choose.random()
                proposed = events.Proposed(one.number, period_s, period_s, ready_s, clock)
                wires.append(make(one) if one.urgent else proposed)
            elif isinstance(one, do.Compile):
                wires.append(make(asked[one.number]))
            elif isinstance(one, do.GiveBack):
                given_back.add(one.device)
            elif isinstance(one, do.Answer | do.Fail):
                outcomes[one.sample] += 1
                under_way.discard(one.sample)
                assert isinstance(one, do.Answer)

    def happen(event: Event) -> None:
        log.append(event)
        if isinstance(event, events.Joined):
            given_back.discard(event.device)
        carry_out(machine.handle(event))

    def look() -> None:
        for name in "abcde":
            happen(events.Seen(machine.epoch, name, None, clock))
        happen(events.Tick(clock))

    carry_out(machine.start())
    for sample in range(20):
        happen(events.Submitted(sample, clock))
        for _ in range(choose.randrange(5)):
            clock += choose.random()
            kind, device = choose.random(), choose.choice("abcde")
            if kind < 0.5 and wires:
                happen(wires.pop(choose.randrange(len(wires))))
            elif kind < 0.55 and wires:
                happen(choose.choice(wires))  # something that comes twice
            elif kind < 0.65:
                for name in choose.sample("abcde", choose.randint(1, 3)):
                    happen(events.DeviceLost(machine.epoch, name, "gone", clock))
            elif kind < 0.7 and wanted:
                happen(events.Returned(choose.choice(wanted), clock))
            elif kind < 0.75:
                happen(events.Joined(device, clock))
            elif kind < 0.8:
                happen(events.Leaving(device, clock))
            elif kind < 0.83:
                happen(events.Missing(device, "it does not answer", clock))
            elif kind < 0.87:
                happen(events.Measured(((device, 0.5 + choose.random()),), (), clock))
            else:
                look()
    ending = True
    for name in "abc":
        happen(events.Joined(name, clock))
    for _ in range(300):
        clock += 1.0
        for name in wanted:
            happen(events.Returned(name, clock))
        for event in wires:
            happen(event)
        wires.clear()
        look()
    assert outcomes == Counter(range(20))
    assert machine.phase == "running"
    used = done[-1:] and machine.handle(events.Tick(clock))
    assert not replans(used or []), "it has come to rest"
    assert replay(CHAIN, machine.settings, [events.from_line(events.to_line(event)) for event in log]) == done


def test_what_a_plan_says_is_in_the_log() -> None:
    event = events.PlanReady(3, plan_for("a", "b"), 1.5)
    assert events.from_line(events.to_line(event)) == event
    assert deadlines.HORIZON_S == 60.0


def test_a_device_of_a_plan_that_gets_ready_is_given_back_after_that() -> None:
    machine = running()
    machine.handle(events.Joined("d", 0.0))
    tick(machine, 3.0)
    machine.handle(events.Proposed(1, 0.5, 2.0, 1.0, 4.0))
    machine.handle(events.PlanReady(1, plan_for("a", "d", period_s=0.5), 5.0))
    assert tick(machine, 5.1) == [do.Prepare(2, 4)]
    assert machine.handle(events.Leaving("d", 5.2)) == []
    assert machine.handle(events.Prepared(2, 6.0)) == [do.Activate(2)]
    assert tick(machine, 6.1) == [do.Prepare(3, 0)]
    assert machine.handle(events.Prepared(3, 7.0)) == [do.Activate(3), do.GiveBack("d")]
    machine.handle(events.Joined("d", 8.0))
    assert tick(machine, 11.0) == [do.Prepare(4, 4)]
    machine.handle(events.Leaving("d", 11.1))
    assert machine.handle(events.Unprepared(4, "a", "it is busy", True, 11.2)) == [do.GiveBack("d")]
