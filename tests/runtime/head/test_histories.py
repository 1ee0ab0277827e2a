"""Sequences as the executor keeps them: fed in order, fed again after every opening, answered once."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime import manifests
from tvmpipe.manifest import Manifest, PlanEntry
from tvmpipe.runtime.head import events
from tvmpipe.runtime.head import instructions as do
from tvmpipe.runtime.head.batches import Batch
from tvmpipe.runtime.head.events import Event
from tvmpipe.runtime.head.histories import Histories
from tvmpipe.runtime.head.instructions import Instruction
from tvmpipe.runtime.head.replay_blocks import StepSizes
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.head.state_machine import MOST_TRIES, StateMachine, replay
from tvmpipe.runtime.transport.wire import Step

RESULT = 3


def recurrent(*devices: str) -> Manifest:
    """A chain of devices whose first keeps a state, and for each device the chain without it."""

    def plan(names: str, lost: str | None) -> PlanEntry:
        stages = [manifests.stage(f"{lost}-s0", names[0], [0, 10], [1, 11])]
        stages += [manifests.stage(f"{lost}-s{n}", name, [n], [n + 1]) for n, name in enumerate(names[1:], start=1)]
        last = stages[-1]
        stages[-1] = last.model_copy(update={"outputs": (manifests.tensor(RESULT), *last.outputs[1:])})
        return manifests.plan(stages, lost)

    whole = "".join(devices)
    spare = [plan(whole.replace(lost, ""), lost) for lost in devices]
    made = manifests.manifest([plan(whole, None), *spare], {"x": 0, "h": 10}, {"y": RESULT, "h'": 11})
    return manifests.in_steps(made, {"h": "h'"}, count=3)


CHAIN = recurrent("a", "b", "c")


def running(**options: object) -> StateMachine:
    machine = StateMachine(CHAIN, Settings(**options))  # type: ignore[arg-type]
    machine.start()
    machine.handle(events.Opened(1, 0.0))
    return machine


def arrived(machine: StateMachine, batch: int, *faults: tuple[int, str, str, str]) -> list[Instruction]:
    return machine.handle(events.Arrived(machine.epoch, batch, (RESULT,), 0.1, faults))


def begun(machine: StateMachine, *slots: int) -> None:
    for sequence, slot in enumerate(slots):
        assert machine.handle(events.Began(sequence, slot, 0.0)) == []


def submit(machine: StateMachine, sample: int, sequence: int) -> list[Instruction]:
    return machine.handle(events.Submitted(sample, 0.0, 0, sequence))


def feed(machine: StateMachine, batch: int, sample: int, *step: int) -> do.Feed:
    slot, number, first = step
    return do.Feed(machine.epoch, batch, (sample,), 0, (Step(slot, number, bool(first)),))


def test_a_batch_has_one_step_of_a_sequence_and_a_slot_goes_on_counting() -> None:
    machine = running(batch=3, max_batches=4)
    begun(machine, 2, 0)
    assert submit(machine, 0, 0) == [feed(machine, 0, 0, 2, 0, 1)]
    assert submit(machine, 1, 0) == []
    assert submit(machine, 2, 1) == []
    both = (Step(2, 1, False), Step(0, 0, True))
    assert submit(machine, 3, 0) == [do.Feed(1, 1, (1, 2), 0, both)], "the third has to wait for its turn"
    assert arrived(machine, 0) == [do.Answer(0, 0, 0), feed(machine, 2, 3, 2, 2, 0)]
    assert arrived(machine, 1) == [do.Answer(1, 1, 0), do.Answer(2, 1, 1)]
    assert arrived(machine, 2) == [do.Answer(3, 2, 0)]
    assert machine.handle(events.Ended(0, 0.5)) == [do.Forget((0, 1, 3)), do.Freed(0)]
    machine.handle(events.Began(2, 2, 0.6))
    assert submit(machine, 4, 2) == [feed(machine, 3, 4, 2, 3, 1)]


def test_steps_are_answered_in_their_order() -> None:
    machine = running(max_batches=4)
    begun(machine, 0)
    for sample in range(3):
        submit(machine, sample, 0)
    assert arrived(machine, 2) == []
    assert arrived(machine, 1) == []
    assert machine.knows(1)
    assert arrived(machine, 0) == [do.Answer(number, number, 0) for number in range(3)]


def test_after_an_opening_each_history_is_fed_again_before_what_was_under_way() -> None:
    machine = running(max_batches=8, failover=True)
    begun(machine, 0, 1)
    for sample, sequence in enumerate((0, 0, 1, 0)):
        submit(machine, sample, sequence)
    for batch in (0, 1):
        arrived(machine, batch)
    machine.handle(events.DeviceLost(1, "b", "it is gone", 0.5))
    again = machine.handle(events.Opened(2, 1.0))
    assert again == [
        feed(machine, 4, 0, 0, 0, 1),
        feed(machine, 5, 2, 1, 0, 1),
        feed(machine, 6, 1, 0, 1, 0),
        feed(machine, 7, 3, 0, 2, 0),
    ]
    assert arrived(machine, 4) == []
    assert arrived(machine, 5) == [do.Answer(2, 5, 0)]
    assert arrived(machine, 6) == []
    assert arrived(machine, 7) == [do.Answer(3, 7, 0)]


def test_a_change_over_begins_anew_too() -> None:
    machine = running(max_batches=4, failover=True)
    begun(machine, 0)
    submit(machine, 0, 0)
    arrived(machine, 0)
    machine.handle(events.DeviceLost(1, "b", "it is gone", 0.5))
    assert machine.handle(events.Opened(2, 1.0)) == [feed(machine, 1, 0, 0, 0, 1)]
    assert arrived(machine, 1) == []
    machine.handle(events.Returned("b", 1.1))
    now = 1.1
    while not machine.prepares(3):
        now += 0.5
        for name in "ac":
            machine.handle(events.Seen(2, name, None, now))
        machine.handle(events.Tick(now))
    assert machine.handle(events.Prepared(3, now)) == [do.Activate(3), feed(machine, 2, 0, 0, 0, 1)]


def test_a_step_that_fails_takes_those_behind_it_along_and_no_other_sequence() -> None:
    machine = running(max_batches=8)
    begun(machine, 0, 1)
    for sample, sequence in enumerate((0, 0, 0, 1)):
        submit(machine, sample, sequence)
    arrived(machine, 0)
    failed = arrived(machine, 1, (0, "b", "s", "no such index"))
    later = do.Failure("b", "s", 2, "step 1 of its sequence failed: no such index", lost=False)
    assert failed == [
        do.Fail(1, do.Failure("b", "s", 1, "no such index", lost=False)),
        do.Fail(2, later),
        do.Forget((0,)),
    ]
    assert arrived(machine, 2) == [], "it was answered already"
    assert arrived(machine, 3) == [do.Answer(3, 3, 0)]
    assert submit(machine, 4, 0) == [do.Fail(4, later.of(4))]
    assert machine.handle(events.Ended(0, 0.5)) == [do.Freed(0)]


def test_with_failover_another_device_is_asked_before_a_step_is_blamed() -> None:
    machine = running(max_batches=8, failover=True)
    begun(machine, 0)
    submit(machine, 0, 0)
    submit(machine, 1, 0)
    arrived(machine, 0)
    assert arrived(machine, 1, (0, "b", "s", "no"))[0] == do.Open(2, 2)
    assert len(machine.handle(events.Opened(2, 0.5))) == 2
    assert arrived(machine, 2) == []
    (failed, forgotten) = arrived(machine, 3, (0, "a", "s", "no"))
    assert failed == do.Fail(1, do.Failure("a", "s", 1, "no", lost=False))
    assert forgotten == do.Forget((0,))


def test_a_slot_is_free_when_nothing_is_under_way() -> None:
    machine = running(max_batches=4)
    begun(machine, 0)
    submit(machine, 0, 0)
    submit(machine, 1, 0)
    assert machine.handle(events.Ended(0, 0.1)) == []
    assert submit(machine, 2, 0) == [do.Fail(2, do.Failure(None, None, 2, "the sequence is closed"))]
    assert arrived(machine, 0) == [do.Answer(0, 0, 0)]
    assert arrived(machine, 1) == [do.Answer(1, 1, 0), do.Forget((0, 1)), do.Freed(0)]


def test_what_was_cut_off_is_not_fed_again_once_nobody_needs_it() -> None:
    machine = running(max_batches=4, recover_s=5.0)
    begun(machine, 0)
    for sample in range(3):
        submit(machine, sample, 0)
    arrived(machine, 0)
    arrived(machine, 1)
    assert machine.handle(events.Cut(0, (1, 2), 0.1)) == [], "the last step is under way, and reads the one before"
    assert arrived(machine, 2) == [do.Answer(2, 2, 0), do.Forget((1, 2))]
    submit(machine, 3, 0)
    machine.handle(events.DeviceLost(1, "b", "gone", 0.5))
    machine.handle(events.Returned("b", 0.6))
    epoch = machine.epoch
    fed = machine.handle(events.Opened(epoch, 0.7))
    assert [one.samples for one in fed if isinstance(one, do.Feed)] == [(0,), (3,)]


def test_a_step_that_is_under_way_at_every_loss_is_given_up() -> None:
    machine = running(recover_s=15.0, max_batches=2)
    begun(machine, 0, 1)
    submit(machine, 0, 0)
    arrived(machine, 0)
    submit(machine, 1, 0)
    failed: list[Instruction] = []
    losses, now = 0, 0.0
    while not failed:
        losses, now = losses + 1, now + 1.0
        lost = machine.handle(events.DeviceLost(machine.epoch, "b", "its host died", now))
        failed = [one for one in lost if isinstance(one, do.Fail)]
        machine.handle(events.Returned("b", now))
        machine.handle(events.Opened(machine.epoch, now))
        for batch in range(100):
            if machine.knows(batch) and machine._batches[batch].samples == (0,):
                arrived(machine, batch)
    assert losses == MOST_TRIES
    assert machine.phase == "running"
    assert [type(one) for one in submit(machine, 2, 1)] == [do.Feed]


class World:
    """Devices that keep what each slot was fed, and lose it with every opening; a head that forgets what it is told."""

    def __init__(self, choose: random.Random, machine: StateMachine, faulty: bool) -> None:
        self.machine = machine
        self.log: list[Event] = []
        self.done: list[list[Instruction]] = []
        self.wires: list[Event] = []
        self.wanted: tuple[str, ...] = ()
        self.clock = 0.0
        self.submitted: dict[int, list[int]] = defaultdict(list)  # by sequence
        self.owner: dict[int, int] = {}
        self.outcomes: Counter[int] = Counter()
        self.answered: list[int] = []
        self.forgotten: set[int] = set()
        self.slots: dict[int, int] = {}  # of sequences that have one
        self._fed: dict[int, list[int]] = defaultdict(list)  # by slot, in this opening
        self._numbers: Counter[int] = Counter()
        self._choose = choose
        self._faulty = faulty
        self._epoch = 0
        self._carry_out(machine.start())

    def happen(self, event: Event) -> None:
        self.log.append(event)
        self._carry_out(self.machine.handle(event))

    def lost_or_returned(self) -> None:
        kind = self._choose.random()
        if kind < 0.6:
            self.happen(events.DeviceLost(self.machine.epoch, self._choose.choice("abc"), "gone", self.clock))
        elif self.wanted:
            self.happen(events.Returned(self._choose.choice(self.wanted), self.clock))

    def tick(self) -> None:
        for name in "abc":
            self.happen(events.Seen(self.machine.epoch, name, None, self.clock))
        self.happen(events.Tick(self.clock))

    def _carry_out(self, instructions: list[Instruction]) -> None:
        self.done.append(instructions)
        for one in instructions:
            if isinstance(one, do.Feed):
                self._feed(one)
            elif isinstance(one, do.Open):
                self.wires.append(events.Opened(one.epoch, self.clock))
            elif isinstance(one, do.Prepare):
                unready = events.Unprepared(one.epoch, self._choose.choice("abc"), "no", True, self.clock)
                self.wires.append(unready if self._choose.random() < 0.3 else events.Prepared(one.epoch, self.clock))
            elif isinstance(one, do.Probe):
                self.wanted = one.devices
            elif isinstance(one, do.Forget):
                assert not self.forgotten & {*one.samples}
                self.forgotten |= {*one.samples}
            elif isinstance(one, do.Freed):
                assert all(self.outcomes[sample] for sample in self.submitted[one.sequence])
                del self.slots[one.sequence]
            elif isinstance(one, do.Answer | do.Fail):
                self.outcomes[one.sample] += 1
                before = [sample for sample in self.submitted[self.owner[one.sample]] if sample < one.sample]
                assert all(self.outcomes[sample] for sample in before), "steps are answered in their order"
                if isinstance(one, do.Answer):
                    self.answered.append(one.sample)
                else:
                    self.forgotten.add(one.sample)

    def _feed(self, one: do.Feed) -> None:
        if one.epoch != self._epoch:
            self._epoch = one.epoch
            self._fed.clear()
            self._numbers.clear()
        assert not self.forgotten & {*one.samples}
        assert len({step.slot for step in one.steps}) == len(one.samples) == len(one.steps)
        for sample, step in zip(one.samples, one.steps, strict=True):
            assert step.slot == self.slots[self.owner[sample]]
            assert step.number == self._numbers[step.slot]
            self._numbers[step.slot] += 1
            if step.first:
                self._fed[step.slot].clear()
            self._fed[step.slot].append(sample)
            steps = self.submitted[self.owner[sample]]
            assert self._fed[step.slot] == steps[: steps.index(sample) + 1], "the states are those of all steps before"
        broken = self._faulty and self._choose.random() < 0.1
        raiser = self._choose.choice(CHAIN.plans[self.machine.plan].devices)
        faults = ((self._choose.randrange(len(one.samples)), raiser, "s", "no"),) if broken else ()
        self.wires.append(events.Arrived(one.epoch, one.batch, (RESULT,), self.clock, faults))


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**31), failover=st.booleans(), batch=st.integers(1, 3), faulty=st.booleans())
def test_every_step_is_answered_once_and_after_all_before_it(
    seed: int, failover: bool, batch: int, faulty: bool
) -> None:
    choose = random.Random(seed)
    machine = StateMachine(CHAIN, Settings(batch=batch, max_batches=3, failover=failover, recover_s=1e9))
    world = World(choose, machine, faulty)
    sample = 0
    opened: set[int] = set()
    for sequence in range(6):
        free = {0, 1, 2} - {*world.slots.values()}
        if free:
            world.slots[sequence] = choose.choice(sorted(free))
            opened.add(sequence)
            world.happen(events.Began(sequence, world.slots[sequence], world.clock))
        for _ in range(12):
            world.clock += choose.random() * 0.3
            kind = choose.random()
            if kind < 0.4 and opened:
                owner = choose.choice(sorted(opened))
                world.submitted[owner].append(sample)
                world.owner[sample] = owner
                world.happen(events.Submitted(sample, world.clock, 0, owner))
                sample += 1
            elif kind < 0.75 and world.wires:
                world.happen(world.wires.pop(choose.randrange(len(world.wires))))
            elif kind < 0.8 and world.wires:
                world.happen(choose.choice(world.wires))  # something that comes twice
            elif kind < 0.9:
                world.lost_or_returned()
            elif kind < 0.93 and opened:
                ended = choose.choice(sorted(opened))
                opened.discard(ended)
                world.happen(events.Ended(ended, world.clock))
            else:
                world.tick()
    for ended in opened:
        world.happen(events.Ended(ended, world.clock))
    for _ in range(300):
        world.clock += 0.3
        for name in world.wanted:
            world.happen(events.Returned(name, world.clock))
        wires, world.wires = world.wires, []
        for event in wires:
            world.happen(event)
        world.tick()
    assert world.outcomes == Counter(range(sample))
    if machine.phase != "failed":  # without failover, in the first opening
        assert world.forgotten == set(range(sample)), "no inputs are kept"
        assert not world.slots
    if failover and not faulty:
        assert sorted(world.answered) == list(range(sample))
    log = [events.from_line(events.to_line(event)) for event in world.log]
    assert replay(CHAIN, machine.settings, log) == world.done


def test_what_grew_token_by_token_is_fed_again_in_long_steps() -> None:
    histories = Histories(StepSizes((4, 1), (True, True), 16))
    histories.begin(events.Began(0, 0, 0.0))
    batches = {}
    for sample in range(7):
        assert histories.submit(events.Submitted(sample, 0.0, 1, 0, start=sample, elements=1)) is None
        histories.feed([sample])
        batches[sample] = Batch((sample,), 0.0, {}, 1, done=sample < 6)
    answered = histories.release(batches)
    assert [one.sample for one in answered if isinstance(one, do.Answer)] == list(range(6))
    waiting, done = histories.rewind(batches.values())
    assert done == [do.Join((0, 1, 2, 3), (1,) * 4, 0), do.Join((4, 5), (1, 1), 0)]
    assert [(one.sample, one.bucket, one.start, one.elements) for one in waiting] == [
        (0, 0, 0, 4),
        (4, 0, 4, 2),
        (6, 1, 6, 1),
    ]
    assert [step.number for step in histories.feed([one.sample for one in waiting])] == [0, 1, 2]
    # Cut off from the sixth element on: what was joined stays whole, for the next step writes over what is too much.
    assert histories.cut(events.Cut(0, (5, 6), 0.0)) == []
    again = {number: Batch((sample,), 0.0, {}, done=True) for number, sample in enumerate((0, 4, 6))}
    assert histories.release(again) == [do.Answer(6, 2, 0), do.Forget((6,))]
    assert [one.sample for one in histories.rewind([])[0]] == [0, 4]
