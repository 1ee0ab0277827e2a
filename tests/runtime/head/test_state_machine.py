"""The executor's decisions, without sockets: any order of losses, returns and answers."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime import manifests
from tvmpipe.manifest import Manifest
from tvmpipe.runtime.head import events
from tvmpipe.runtime.head import instructions as do
from tvmpipe.runtime.head.events import Event
from tvmpipe.runtime.head.instructions import Instruction
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.head.state_machine import MOST_TRIES, StateMachine, replay
from tvmpipe.runtime.transport import deadlines

CHAIN = manifests.chain("a", "b", "c")


def in_turn() -> Manifest:
    """Two devices in turn and then c, with a plan for the loss of each."""
    both = [*manifests.in_turn("s0", "ab", [0], [1]), manifests.stage("s1", "c", [1], [3])]
    spare = [manifests.plan([manifests.stage(f"{lost}-s0", rest, [0], [3])], lost) for lost, rest in ("ab", "bc", "ca")]
    return manifests.manifest([manifests.plan(both), *spare], {"x": 0}, {"y": 3})


TURNS = in_turn()
BUCKETS = manifests.in_buckets(CHAIN, (8, 2), {"x": 0.0})
IN_TURN_BUCKETS = manifests.in_buckets(TURNS, (8, 4, 2), {"x": 0.0})


def opened(machine: StateMachine, now: float = 0.0) -> list[Instruction]:
    return machine.handle(events.Opened(machine.epoch, now))


def running(**options: object) -> StateMachine:
    machine = StateMachine(CHAIN, Settings(**options))  # type: ignore[arg-type]
    assert machine.start() == [do.Open(1, 0)]
    assert opened(machine) == []
    return machine


def test_samples_are_fed_while_there_is_room_and_answered_once() -> None:
    machine = running(max_batches=2)
    assert machine.handle(events.Submitted(0, 0.0)) == [do.Feed(1, 0, (0,))]
    assert machine.handle(events.Submitted(1, 0.0)) == [do.Feed(1, 1, (1,))]
    assert machine.handle(events.Submitted(2, 0.0)) == []
    done = machine.handle(events.Arrived(1, 0, (3,), 0.1))
    assert done == [do.Answer(0, 0, 0), do.Feed(1, 2, (2,))]
    assert machine.handle(events.Arrived(1, 0, (3,), 0.1)) == []


def test_batches_fill_up_or_linger() -> None:
    machine = running(batch=3, max_batches=3)
    assert machine.handle(events.Submitted(0, 0.0)) == [do.Feed(1, 0, (0,))], "nothing is under way to wait for"
    for sample in (1, 2):
        assert machine.handle(events.Submitted(sample, 0.0)) == []
    assert machine.lingers
    assert machine.handle(events.Submitted(3, 0.0)) == [do.Feed(1, 1, (1, 2, 3))]
    assert machine.handle(events.Submitted(4, 0.0)) == []
    assert machine.handle(events.Tick(deadlines.LINGER_S / 2)) == []
    assert machine.handle(events.Tick(deadlines.LINGER_S)) == [do.Feed(1, 2, (4,))]
    answers = machine.handle(events.Arrived(1, 1, (3,), 0.1))
    assert answers == [do.Answer(sample, 1, sample - 1) for sample in (1, 2, 3)]


def result(bucket: int) -> int:
    """The id of the result in a bucket."""
    return 3 + manifests.IDS * bucket


def in_two_buckets(**options: object) -> StateMachine:
    machine = StateMachine(BUCKETS, Settings(**options))  # type: ignore[arg-type]
    machine.start()
    opened(machine)
    return machine


def test_a_batch_has_samples_of_one_bucket_and_waits_for_no_other() -> None:
    machine = in_two_buckets(batch=3, max_batches=4)
    assert machine.handle(events.Submitted(0, 0.0, 1)) == [do.Feed(1, 0, (0,), 1)]
    assert machine.handle(events.Submitted(1, 0.0, 1)) == [], "it may get company"
    assert machine.handle(events.Submitted(2, 0.0, 0)) == [do.Feed(1, 1, (1,), 1)], "nothing can join it any more"
    assert machine.handle(events.Submitted(3, 0.0, 0)) == []
    assert machine.handle(events.Submitted(4, 0.0, 0)) == [do.Feed(1, 2, (2, 3, 4))]


def test_a_batch_is_done_when_the_results_of_its_bucket_are_there() -> None:
    machine = in_two_buckets(max_batches=2)
    machine.handle(events.Submitted(0, 0.0, 1))
    assert machine.handle(events.Arrived(1, 0, (result(0),), 0.1)) == []
    assert machine.handle(events.Arrived(1, 0, (result(1),), 0.1)) == [do.Answer(0, 0, 0)]


def test_a_loss_feeds_batches_of_every_bucket_again() -> None:
    machine = in_two_buckets(max_batches=3, failover=True)
    for sample, bucket in enumerate((1, 0, 1)):
        machine.handle(events.Submitted(sample, 0.0, bucket))
    machine.handle(events.DeviceLost(1, "b", "it is gone", 0.5))
    assert opened(machine, 1.0) == [do.Feed(2, n, (n,), bucket) for n, bucket in enumerate((1, 0, 1))]


def test_what_is_late_is_looked_for_among_the_stages_of_its_bucket() -> None:
    machine = in_two_buckets(max_batches=2, timeout_s=1.0, recover_s=0.0)
    machine.handle(events.Submitted(0, 0.0, 0))
    machine.handle(events.Submitted(1, 0.0, 1))
    machine.handle(events.Arrived(1, 0, (result(0),), 0.1))
    counts = {"main-s0": 1, "main-s1": 1, "main-s2": 1, "b1-main-s0": 1, "b1-main-s1": 0, "b1-main-s2": 0}
    for device in "abc":
        machine.handle(events.Seen(1, device, None, 6.0, counts))
    (failed,) = machine.handle(events.Tick(6.0))
    assert isinstance(failed, do.Fail)
    assert failed.failure.device == "b"


def test_without_failover_and_patience_a_loss_fails_everything_by_name() -> None:
    machine = running(max_batches=1, recover_s=0.0)
    machine.handle(events.Submitted(0, 0.0))
    machine.handle(events.Submitted(1, 0.0))
    failed = machine.handle(events.DeviceLost(1, "b", "it is gone", 0.5))
    assert [(f.sample, f.failure.device, f.failure.stage, f.failure.sample) for f in failed] == [  # type: ignore[union-attr]
        (0, "b", "main-s1", 0),
        (1, "b", "main-s1", 1),
    ]
    (late,) = machine.handle(events.Submitted(2, 0.6))
    assert isinstance(late, do.Fail)
    assert machine.handle(events.Arrived(1, 0, (3,), 0.7)) == []


def test_with_failover_what_is_under_way_is_fed_again() -> None:
    machine = running(max_batches=2, failover=True)
    machine.handle(events.Submitted(0, 0.0))
    machine.handle(events.Submitted(1, 0.0))
    machine.handle(events.Arrived(1, 0, (3,), 0.1))
    assert machine.handle(events.DeviceLost(1, "b", "it is gone", 0.5)) == [do.Open(2, 2), do.Probe(("b",))]
    assert machine.handle(events.Arrived(1, 1, (3,), 0.6)) == [], "an answer of an earlier opening counts for nothing"
    assert opened(machine, 1.0) == [do.Feed(2, 1, (1,))]
    assert machine.handle(events.Arrived(2, 1, (3,), 1.1)) == [do.Answer(1, 1, 0)]


def test_a_device_that_is_back_is_used_again() -> None:
    machine = running(failover=True)
    machine.handle(events.DeviceLost(1, "b", "it is gone", 0.0))
    opened(machine, 1.0)
    assert machine.handle(events.Returned("b", 1.5)) == [do.Probe(())]
    for name in ("a", "c"):
        machine.handle(events.Seen(2, name, None, 1.5 + deadlines.RETURN_S))
    assert machine.handle(events.Tick(1.5 + deadlines.RETURN_S)) == [], "not before it has been back for a while"
    assert machine.handle(events.Tick(1.6 + deadlines.RETURN_S)) == [do.Prepare(3, 0)]
    assert machine.handle(events.Submitted(0, 4.0)) == [do.Feed(2, 0, (0,))], "what runs goes on meanwhile"
    assert machine.handle(events.Prepared(3, 4.1)) == [], "not before what is under way is done"
    assert machine.handle(events.Submitted(1, 4.1)) == []
    assert machine.handle(events.Arrived(2, 0, (3,), 4.2)) == [
        do.Answer(0, 0, 0),
        do.Activate(3),
        do.Feed(3, 1, (1,)),
    ]
    assert (machine.plan, machine.phase) == (0, "running")
    assert machine.handle(events.Arrived(3, 1, (3,), 4.3)) == [do.Answer(1, 1, 0)]


def returned() -> StateMachine:
    """A machine that runs without b and is making a plan with it ready."""
    machine = running(failover=True)
    machine.handle(events.DeviceLost(1, "b", "it is gone", 0.0))
    opened(machine, 1.0)
    machine.handle(events.Returned("b", 1.0))
    for name in ("a", "c"):
        machine.handle(events.Seen(2, name, None, 3.5))
    assert machine.handle(events.Tick(3.5)) == [do.Prepare(3, 0)]
    return machine


def test_where_there_is_no_room_for_two_plans_the_running_one_ends_first() -> None:
    machine = returned()
    machine.handle(events.Submitted(0, 3.5))
    assert machine.handle(events.Unprepared(3, "a", "it has no room", False, 3.6)) == [do.Open(4, 0)]
    assert opened(machine, 4.0) == [do.Feed(4, 0, (0,))]


def test_a_returned_device_that_cannot_be_made_ready_is_lost_again() -> None:
    machine = returned()
    assert machine.handle(events.Unprepared(3, "b", "it went away", True, 3.6)) == [do.Probe(("b",))]
    assert machine.phase == "running"
    machine.handle(events.Returned("b", 3.7))
    now = 3.7
    while machine.epoch < 4:
        now += 0.5
        for name in ("a", "c"):
            machine.handle(events.Seen(2, name, None, now))
        if machine.handle(events.Tick(now)):
            break
    assert now - 3.7 > 2 * deadlines.RETURN_S - 0.5, "it has to stay longer than the first time"


def test_a_device_that_fails_while_it_is_needed_keeps_its_work() -> None:
    machine = returned()
    assert machine.handle(events.Unprepared(3, "a", "it is busy", True, 3.6)) == []
    assert machine.lost == {}
    assert machine.handle(events.Submitted(0, 3.7)) == [do.Feed(2, 0, (0,))]


def test_a_loss_ends_what_is_being_made_ready() -> None:
    for ready in (False, True):
        machine = returned()
        machine.handle(events.Submitted(0, 3.5))
        if ready:
            assert machine.handle(events.Prepared(3, 3.6)) == []
        assert machine.handle(events.DeviceLost(2, "a", "gone", 3.7))[0] == do.Open(4, 1)
        assert not machine.prepares(3)
        assert machine.handle(events.Prepared(3, 3.8)) == []
        assert opened(machine, 4.0) == [do.Feed(4, 0, (0,))]


def test_without_failover_a_device_that_comes_back_in_time_is_waited_for() -> None:
    machine = running(recover_s=5.0)
    machine.handle(events.Submitted(0, 0.0))
    assert machine.handle(events.DeviceLost(1, "b", "the link broke", 0.5)) == [do.Probe(("b",))]
    assert machine.handle(events.Submitted(1, 0.6)) == []
    assert machine.handle(events.Returned("b", 1.5)) == [do.Probe(()), do.Open(3, 0)]
    assert opened(machine, 2.0) == [do.Feed(3, 0, (0,)), do.Feed(3, 1, (1,))]
    assert machine.handle(events.Arrived(3, 0, (3,), 2.1)) == [do.Answer(0, 0, 0)]


def test_a_first_opening_without_failover_waits_for_nobody() -> None:
    machine = StateMachine(CHAIN, Settings(recover_s=5.0))
    machine.start()
    machine.handle(events.Submitted(0, 0.0))
    (failed,) = machine.handle(events.DeviceLost(1, "b", "no device with this key", 0.1))
    assert isinstance(failed, do.Fail)


@pytest.mark.parametrize("failover", [False, True])
def test_openings_that_never_get_done_come_to_an_end(failover: bool) -> None:
    """Whatever the phase: each opening fails, or none ever answers."""
    for silent in (False, True):
        machine = running(failover=failover, recover_s=5.0)
        machine.handle(events.Submitted(0, 0.0))
        done = machine.handle(events.DeviceLost(1, "b", "it is gone", 0.0))
        now = 0.0
        while machine.phase != "failed":
            now += 0.25
            assert now < 6.0
            if machine.phase == "opening" and not silent:
                done += machine.handle(events.DeviceLost(machine.epoch, "c", "cannot be opened", now))
            for name in tuple(machine.lost):
                done += machine.handle(events.Returned(name, now))
            done += machine.handle(events.Tick(now))
        (failed,) = [one for one in done if isinstance(one, do.Fail)]
        assert (failed.failure.device, failed.failure.message) == (
            "b",
            "it is gone; nothing could run again within 5 s",
        )


def test_openings_in_which_nothing_comes_out_come_to_an_end() -> None:
    """All devices answer, but one link is cut."""
    machine = running(recover_s=5.0)
    machine.handle(events.Submitted(0, 0.0))
    now = 0.0
    while machine.phase != "failed":
        assert now < 11.0
        machine.handle(events.DeviceLost(machine.epoch, "b", "the link from a to b could not be made", now))
        machine.handle(events.Returned("b", now))
        opened(machine, now + 1.0)
        now += 2.5
    assert machine.failure is not None
    assert machine.failure.message == "the link from a to b could not be made; nothing could run again within 5 s"


def test_a_batch_that_was_there_at_every_loss_is_given_up() -> None:
    machine = running(recover_s=15.0)
    machine.handle(events.Submitted(0, 0.0))
    losses, now = 0, 0.0
    failed: list[Instruction] = []
    while not failed:
        losses, now = losses + 1, now + 1.0
        failed = [
            one
            for one in machine.handle(events.DeviceLost(machine.epoch, "b", "its host died", now))
            if isinstance(one, do.Fail)
        ]
        machine.handle(events.Returned("b", now))
        opened(machine, now)
    assert losses == MOST_TRIES
    assert machine.phase == "running"
    assert machine.handle(events.Submitted(1, now)) == [do.Feed(machine.epoch, 1, (1,))]


def fault(place: int, device: str) -> tuple[int, str, str, str]:
    return place, device, f"{device}'s", "no such index"


def test_a_sample_that_a_stage_raises_for_fails_alone() -> None:
    machine = running(batch=3, max_batches=2)
    machine.handle(events.Submitted(0, 0.0))
    for sample in (1, 2, 3):
        machine.handle(events.Submitted(sample, 0.0))
    done = machine.handle(events.Arrived(1, 1, (3,), 0.1, (fault(1, "b"),)))
    assert done == [
        do.Answer(1, 1, 0),
        do.Fail(2, do.Failure("b", "b's", 2, "no such index", lost=False)),
        do.Answer(3, 1, 2),
    ]
    assert machine.phase == "running"


def test_with_failover_another_device_is_asked_before_a_sample_is_blamed() -> None:
    machine = running(failover=True)
    machine.handle(events.Submitted(0, 0.0))
    assert machine.handle(events.Arrived(1, 0, (3,), 0.1, (fault(0, "b"),))) == [
        do.Open(2, 2),
        do.Probe(("b",)),
    ]
    assert opened(machine, 0.5) == [do.Feed(2, 0, (0,))]
    (failed,) = machine.handle(events.Arrived(2, 0, (3,), 0.6, (fault(0, "a"),)))
    assert failed == do.Fail(0, do.Failure("a", "a's", 0, "no such index", lost=False))


def test_a_late_batch_is_blamed_on_the_device_that_holds_it() -> None:
    machine = running(timeout_s=1.0, max_batches=2, failover=True)
    machine.handle(events.Submitted(0, 0.0))
    machine.handle(events.Submitted(1, 0.0))
    for name, stages in (("a", {"main-s0": 2}), ("b", {"main-s1": 0}), ("c", {"main-s2": 0})):
        machine.handle(events.Seen(1, name, None, 5.2, stages))
    assert machine.handle(events.Tick(5.2)) == [do.Open(2, 2), do.Probe(("b",))]


def test_a_device_that_comes_and_goes_has_to_stay_longer_each_time() -> None:
    machine = running(failover=True)
    now, epoch, waits = 0.0, 1, []
    for _ in range(7):
        machine.handle(events.DeviceLost(epoch, "b", "it is gone", now))
        machine.handle(events.Opened(epoch + 1, now))
        machine.handle(events.Returned("b", now))
        back = now
        while not machine.prepares(epoch + 2):
            now += 0.5
            for name in ("a", "c"):
                machine.handle(events.Seen(epoch + 1, name, None, now))
            machine.handle(events.Tick(now))
        machine.handle(events.Prepared(epoch + 2, now))
        waits.append(now - back - 0.5)
        epoch += 2
    doubled = [deadlines.RETURN_S * 2**times for times in range(7)]
    assert waits == [min(seconds, deadlines.LONGEST_RETURN_S) for seconds in doubled]
    assert waits[-1] == deadlines.LONGEST_RETURN_S


def test_two_losses_wait_for_a_return_and_then_give_up() -> None:
    machine = running(failover=True, recover_s=5.0)
    machine.handle(events.Submitted(0, 0.0))
    machine.handle(events.DeviceLost(1, "a", "gone", 0.0))
    assert machine.handle(events.DeviceLost(2, "b", "gone too", 0.1)) == [do.Probe(("a", "b"))]
    assert machine.phase == "waiting"
    assert machine.handle(events.Tick(5.0)) == []
    returned = machine.handle(events.Returned("b", 4.5))
    assert returned == [do.Probe(("a",)), do.Open(4, 1)]
    machine.handle(events.DeviceLost(4, "c", "gone as well", 4.9))
    assert machine.handle(events.Tick(5.0)) == []
    (failed,) = machine.handle(events.Tick(5.1))
    assert isinstance(failed, do.Fail)
    assert failed.failure.device == "a"


def test_silence_is_a_loss() -> None:
    machine = running(recover_s=0.0)
    machine.handle(events.Submitted(0, 0.0))
    for name in ("a", "c"):
        machine.handle(events.Seen(1, name, None, deadlines.SILENCE_S))
    assert machine.handle(events.Tick(deadlines.SILENCE_S)) == []
    (failed,) = machine.handle(events.Tick(deadlines.SILENCE_S + 0.1))
    assert isinstance(failed, do.Fail)
    assert failed.failure.device == "b"


def test_a_stage_that_takes_too_long_is_a_loss_of_its_device() -> None:
    machine = running(timeout_s=2.0)
    machine.handle(events.Submitted(0, 0.0))
    assert machine.handle(events.Seen(1, "b", ("main-s1", 0, 1.9), 1.9)) == []
    failed, _ = machine.handle(events.Seen(1, "b", ("main-s1", 0, 2.1), 2.1))
    assert isinstance(failed, do.Fail)
    assert (failed.failure.device, failed.failure.stage) == ("b", "main-s1")
    # The others are fed again, once it has come back.
    machine.handle(events.Submitted(1, 2.2))
    machine.handle(events.Returned("b", 2.3))
    assert opened(machine, 2.4) == [do.Feed(machine.epoch, 1, (1,))]


@settings(max_examples=300, deadline=None)
@given(
    manifest=st.sampled_from([CHAIN, TURNS, BUCKETS, IN_TURN_BUCKETS]),
    seed=st.integers(0, 2**31),
    failover=st.booleans(),
    batch=st.integers(1, 3),
    faulty=st.booleans(),
)
def test_every_sample_is_answered_or_failed_exactly_once(
    manifest: Manifest, seed: int, failover: bool, batch: int, faulty: bool
) -> None:
    """A world that loses, repeats and delays at random; at its end every device comes back and stays."""
    choose = random.Random(seed)
    machine = StateMachine(manifest, Settings(batch=batch, max_batches=3, failover=failover, recover_s=1e9))
    log: list[Event] = []
    done: list[list[Instruction]] = []
    wires: list[Event] = []
    outcomes: Counter[int] = Counter()
    answered: set[int] = set()
    fed: set[int] = set()
    bucket_of: list[int] = []
    clock = 0.0
    wanted: tuple[str, ...] = ()

    def carry_out(instructions: list[Instruction]) -> None:
        nonlocal wanted
        done.append(instructions)
        for one in instructions:
            if isinstance(one, do.Feed):
                fed.update(one.samples)
                assert {bucket_of[sample] for sample in one.samples} == {one.bucket}
                broken = faulty and choose.random() < 0.2
                raiser = choose.choice(manifest.plans[machine.plan].devices)
                faults = (fault(choose.randrange(len(one.samples)), raiser),) if broken else ()
                wires.append(events.Arrived(one.epoch, one.batch, (result(one.bucket),), clock, faults))
            elif isinstance(one, do.Open):
                wires.append(events.Opened(one.epoch, clock))
            elif isinstance(one, do.Prepare):
                unready = events.Unprepared(one.epoch, choose.choice("abc"), "no", choose.random() < 0.5, clock)
                wires.append(unready if choose.random() < 0.3 else events.Prepared(one.epoch, clock))
            elif isinstance(one, do.Activate):
                assert not fed, "nothing is left behind in what ran before"
            elif isinstance(one, do.Probe):
                wanted = one.devices
            elif isinstance(one, do.Answer | do.Fail):
                outcomes[one.sample] += 1
                fed.discard(one.sample)
                if isinstance(one, do.Answer):
                    answered.add(one.sample)

    def happen(event: Event) -> None:
        log.append(event)
        carry_out(machine.handle(event))

    carry_out(machine.start())
    for sample in range(20):
        bucket_of.append(choose.randrange(len(manifest.buckets)))
        happen(events.Submitted(sample, clock, bucket_of[sample]))
        for _ in range(choose.randrange(4)):
            clock += choose.random() * 0.3
            kind = choose.random()
            if kind < 0.6 and wires:
                happen(wires.pop(choose.randrange(len(wires))))
            elif kind < 0.7 and wires:
                happen(choose.choice(wires))  # something that comes twice
            elif kind < 0.78:
                happen(events.DeviceLost(machine.epoch, choose.choice("abc"), "gone", clock))
            elif kind < 0.85 and wanted:
                happen(events.Returned(choose.choice(wanted), clock))
            else:
                for name in "abc":
                    happen(events.Seen(machine.epoch, name, None, clock))
                happen(events.Tick(clock))
    for _ in range(200):
        clock += 0.3
        for name in wanted:
            happen(events.Returned(name, clock))
        for event in wires:
            happen(event)
        wires.clear()
        for name in "abc":
            happen(events.Seen(machine.epoch, name, None, clock))
        happen(events.Tick(clock))
    assert outcomes == Counter(range(20))
    if failover and not faulty:
        assert answered == set(range(20))
    assert replay(manifest, machine.settings, [events.from_line(events.to_line(event)) for event in log]) == done


def test_the_loss_of_a_device_that_takes_turns_is_one_as_any_other() -> None:
    machine = StateMachine(TURNS, Settings(failover=True, max_batches=4))
    machine.start()
    opened(machine)
    for sample in range(4):
        machine.handle(events.Submitted(sample, 0.0))
    machine.handle(events.Arrived(1, 1, (3,), 0.1))
    assert machine.handle(events.DeviceLost(1, "b", "it is gone", 0.5)) == [do.Open(2, 2), do.Probe(("b",))]
    assert opened(machine, 1.0) == [do.Feed(2, batch, (batch,)) for batch in (0, 2, 3)]
    single = StateMachine(TURNS, Settings(recover_s=0.0))
    single.start()
    opened(single)
    single.handle(events.Submitted(0, 0.0))
    (failed,) = single.handle(events.DeviceLost(1, "b", "it is gone", 0.5))
    assert isinstance(failed, do.Fail)
    assert (failed.failure.device, failed.failure.stage) == ("b", "s0@b")


def test_a_closed_machine_fails_what_comes() -> None:
    machine = running()
    machine.handle(events.Submitted(0, 0.0))
    assert [type(one) for one in machine.handle(events.Closed(1.0))] == [do.Fail]
    assert [type(one) for one in machine.handle(events.Submitted(1, 1.0))] == [do.Fail]
    assert machine.handle(events.Tick(2.0)) == []


def test_a_line_that_is_no_event_is_refused() -> None:
    with pytest.raises(KeyError):
        events.from_line('{"event": "Elsewhere"}')
