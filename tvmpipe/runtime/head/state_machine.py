"""What the executor decides: a function of events to instructions, with no clock, thread, socket or tensor in it.

Samples of one bucket that follow each other go into batches, batches into the pipeline while fewer than `max_batches`
are under way. A batch is answered once, when its last result has come in. When a device is lost every batch under way
is fed again into the next opening, on the first plan that needs none of the lost devices; answers of an earlier opening
count for nothing. Without failover there is one plan, and the lost device must come back. Where nothing can be opened
in time the pipeline fails, and everything that was not answered with it.

A device that is back is made ready beside the plan that runs; the change happens between two batches.

A sample that a stage raises for fails alone; with failover not before another device has raised, too.

Samples of a model with states are steps of sequences, of which `Histories` keeps the books: after each opening every
sequence begins anew with what it was fed before. Of one sequence a batch has one step at most.

The same events always give the same instructions, so that a log of events replays a run (`replay`).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from tvmpipe.manifest import Manifest
from tvmpipe.runtime.head.batches import Batch, Progress
from tvmpipe.runtime.head.drift import Expected
from tvmpipe.runtime.head.events import (
    Arrived,
    Began,
    Closed,
    Cut,
    DeviceLost,
    Ended,
    Event,
    Joined,
    Leaving,
    Measured,
    Missing,
    Opened,
    PlanFailed,
    PlanReady,
    Prepared,
    Proposed,
    Returned,
    Submitted,
    Tick,
    Unprepared,
)
from tvmpipe.runtime.head.histories import Histories
from tvmpipe.runtime.head.instructions import (
    Activate,
    Answer,
    Fail,
    Failure,
    Feed,
    GiveBack,
    Instruction,
    Open,
    Prepare,
    Tell,
    Widen,
)
from tvmpipe.runtime.head.known_plans import KnownPlans
from tvmpipe.runtime.head.losses import Losses
from tvmpipe.runtime.head.membership import BETTER, Membership, Running
from tvmpipe.runtime.head.replay_blocks import step_sizes
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.wire import Step

MOST_TRIES = 10  # openings that a batch may have been under way in when a device was lost: it may be what ends them


@dataclass(frozen=True)
class _Prepared:
    """What is being made ready beside the plan that runs, or is ready."""

    epoch: int
    plan: int
    ready: bool = False


class StateMachine:
    """The executor's state. `handle` takes one event and returns what is to be done about it, in order."""

    def __init__(self, manifest: Manifest, settings: Settings) -> None:
        self.settings = settings
        self.epoch = 0
        self.plan = 0
        self.phase = "new"  # new, opening, running, waiting, failed, closed
        self.failure: Failure | None = None
        self._losses = Losses()
        plans = manifest.plans if settings.failover else manifest.plans[:1]
        self._plans = KnownPlans(plans, manifest.objective)
        devices = frozenset(device.name for device in manifest.devices)
        planned_for = [devices.difference([plan.lost]) for plan in plans]
        self._membership = Membership(devices, planned_for, settings.horizon_s)
        self._most_batches = settings.max_batches
        self._results = [
            frozenset(bucket.model_outputs.values()) - frozenset(bucket.model_inputs.values())
            for bucket in manifest.buckets
        ]
        self._histories = None if manifest.sequences is None else Histories(step_sizes(manifest))
        self._pending: deque[Submitted] = deque()
        self._batches: dict[int, Batch] = {}
        self._next_batch = 0
        self._progress = Progress(manifest.plan)
        self._heard_s = 0.0  # when values of a batch last came in
        self._seen: dict[str, float] = {}
        self._epochs = 0
        self._prepared: _Prepared | None = None
        self._ran = False
        self._stalled: tuple[float, Failure] | None = None  # since when nothing comes out, and why

    @property
    def lost(self) -> Collection[str]:
        """Devices that are looked for."""
        return self._losses.lost

    @property
    def under_way(self) -> int:
        """Batches in the pipeline."""
        return len(self._batches)

    @property
    def expected(self) -> Expected | None:
        """What runs and how fast it should be; None while nothing does."""
        if self.phase != "running":
            return None
        plans = self._plans
        return Expected(plans.entries[self.plan], plans.made_for(self.plan), plans.speeds, plans.period_s(self.plan))

    @property
    def full(self) -> bool:
        """Whether as many batches are under way as may be, or one less: whoever got a result is about to submit."""
        return len(self._batches) >= max(1, self._most_batches - 1)

    def prepares(self, epoch: int) -> bool:
        """Whether a plan is being made ready as this opening."""
        return self._prepared is not None and self._prepared.epoch == epoch

    def knows(self, batch: int) -> bool:
        """Whether a batch is under way."""
        return batch in self._batches

    @property
    def lingers(self) -> bool:
        """Whether an incomplete batch waits for more samples, so that ticks must come soon."""
        return bool(self._pending) and self.phase == "running" and len(self._batches) < self._most_batches

    def handle(self, event: Event) -> list[Instruction]:
        """Take an event; raises nothing."""
        if self.phase == "closed":
            return [Fail(event.sample, _CLOSED)] if isinstance(event, Submitted) else []
        if isinstance(event, Submitted):
            return self._submitted(event)
        if isinstance(event, Arrived):
            return self._arrived(event)
        if isinstance(event, Opened):
            return self._opened(event)
        if isinstance(event, Prepared):
            return self._ready(event)
        if isinstance(event, Unprepared):
            return self._unprepared(event)
        if isinstance(event, DeviceLost):
            return self._device_lost(event)
        if isinstance(event, Returned):
            return self._returned(event)
        if isinstance(event, Began | Cut | Ended):
            return self._sequence(event)
        if isinstance(event, Missing):
            return self._missing(event)
        if isinstance(event, Joined | Leaving | Measured | Proposed | PlanReady | PlanFailed):
            return self._members(event)
        if isinstance(event, Closed):
            return self._closed()
        if isinstance(event, Tick):
            return self._tick(event)
        self._seen[event.device] = max(event.now_s, self._seen.get(event.device, 0.0))
        if event.epoch == self.epoch:
            self._progress.computed(event.computed)
        if event.busy is not None and event.epoch == self.epoch and event.busy[2] > self.settings.timeout_s:
            stage, batch, seconds = event.busy
            why = f"stage {stage} has been computing for {seconds:.1f} s, longer than the {self.settings.timeout_s:g} s"
            return self._stage_hangs(DeviceLost(event.epoch, event.device, f"{why} allowed", event.now_s, stage, batch))
        return []

    def start(self) -> list[Instruction]:
        """Open the first plan."""
        return self._open(0)

    def _submitted(self, event: Submitted) -> list[Instruction]:
        if self.failure is not None:
            return [Fail(event.sample, self.failure)]
        if self._histories is not None and (refused := self._histories.submit(event)) is not None:
            return [Fail(event.sample, refused)]
        self._pending.append(event)
        return self._feed(event.now_s)

    def _sequence(self, event: Began | Cut | Ended) -> list[Instruction]:
        """A sequence begins, is cut back or ends."""
        if self._histories is None or self.failure is not None:
            return []
        if isinstance(event, Began):
            self._histories.begin(event)
            return []
        done = self._histories.cut(event) if isinstance(event, Cut) else self._histories.end(event)
        self._prune()
        return done

    def _prune(self) -> None:
        """Let go of what waits to be fed for nothing: steps of sequences that have ended, or of which a step failed."""
        histories = self._histories
        if histories is not None and histories.stale:
            self._pending = deque(one for one in self._pending if histories.wants(one.sample))
            histories.stale = False

    def _feed(self, now_s: float, *, linger: bool = True) -> list[Instruction]:
        """Batches for what waits, as far as there is room.

        An incomplete one lingers while others are under way: a sample that comes alone need not wait for company. So it
        does where a sample of another bucket has come behind it, which cannot go with it.
        """
        instructions: list[Instruction] = []
        size = self.settings.batch
        if self._prepared is not None and self._prepared.ready:
            return instructions  # what is under way is waited for, to change over
        while self._pending and self.phase == "running" and len(self._batches) < self._most_batches:
            lingers = linger and self._batches and now_s - self._pending[0].now_s < deadlines.LINGER_S
            bucket = self._pending[0].bucket
            alike = self._alike(size)
            if alike == len(self._pending) < size and lingers:
                break
            samples = tuple(self._pending.popleft().sample for _ in range(alike))
            number, self._next_batch = self._next_batch, self._next_batch + 1
            due = self._progress.fed(number, len(samples), bucket)
            self._batches[number] = batch = Batch(samples, now_s, due, bucket)
            steps: tuple[Step, ...] = ()
            if self._histories is not None:
                steps, batch.suspects = self._histories.feed(samples), self._histories.suspects(samples)
            instructions.append(Feed(self.epoch, number, samples, bucket, steps))
            if not self._results[bucket]:
                instructions += self._complete(number)
        return instructions

    def _alike(self, most: int) -> int:
        """How many of the samples that wait may go together: the first ones, as far as they are of one bucket.

        And of different sequences.
        """
        bucket = self._pending[0].bucket
        waiting = itertools.islice(self._pending, most)
        alike = itertools.takewhile(lambda one: one.bucket == bucket, waiting)
        if self._histories is None:
            return sum(1 for _ in alike)
        sequences: set[int | None] = set()
        for one in alike:
            if one.sequence in sequences:
                break
            sequences.add(one.sequence)
        return len(sequences)

    def _arrived(self, event: Arrived) -> list[Instruction]:
        batch = self._batches.get(event.batch)
        if event.epoch != self.epoch or batch is None:
            return []
        self._heard_s = event.now_s
        self._stalled = None
        batch.there.update(event.values)
        batch.faults |= {place: (device, stage, message) for place, device, stage, message in event.faults}
        if not batch.there >= self._results[batch.bucket]:
            return []
        if batch.faults and self.settings.failover and not batch.suspects.issuperset(batch.faulty):
            # It may be the device: another one is asked before a sample is blamed.
            device, stage, message = next(iter(batch.faults.values()))
            batch.suspects.update(batch.samples)
            return self._device_lost(
                DeviceLost(event.epoch, device, f"a stage raised: {message}", event.now_s, stage, event.batch)
            )
        return [*self._complete(event.batch), *(self._change_over(event.now_s) or self._feed(event.now_s))]

    def _complete(self, number: int) -> list[Instruction]:
        if self._histories is not None:
            self._batches[number].done = True
            done = self._histories.release(self._batches)
            self._prune()
            return done
        batch = self._batches.pop(number)
        done = []
        for place, sample in enumerate(batch.samples):
            if place in batch.faults:
                device, stage, message = batch.faults[place]
                done.append(Fail(sample, Failure(device, stage, sample, message, lost=False)))
            else:
                done.append(Answer(sample, number, place))
        return done

    def _opened(self, event: Opened) -> list[Instruction]:
        if event.epoch != self.epoch or self.phase != "opening":
            return []
        self.phase, self._ran = "running", True
        if not self._batches:
            self._stalled = None  # else that it runs is shown by the first that comes out
        self._begin(event.now_s)
        instructions = [*self._widen(), *self._rewind()]
        for number, batch in self._batches.items():
            batch.there.clear()
            batch.faults.clear()
            batch.fed_s = event.now_s
            batch.tries += 1
            batch.due = self._progress.fed(number, len(batch.samples), batch.bucket)
            instructions.append(Feed(self.epoch, number, batch.samples, batch.bucket))
        return [*instructions, *self._feed(event.now_s, linger=False), *self._give_back()]

    def _begin(self, now_s: float) -> None:
        """From now on what was opened last is fed."""
        plan = self._plans.entries[self.plan]
        self._seen = dict.fromkeys(plan.devices, now_s)
        self._progress = Progress(plan)

    def _rewind(self) -> list[Instruction]:
        """What was opened has no states, so that every sequence begins anew."""
        if self._histories is None:
            return []
        self._pending, done = self._histories.rewind(self._batches.values())
        self._batches.clear()
        return done

    def _ready(self, event: Prepared) -> list[Instruction]:
        if self._prepared is None or self._prepared.epoch != event.epoch:
            return []
        self._prepared = replace(self._prepared, ready=True)
        return self._change_over(event.now_s)

    def _change_over(self, now_s: float) -> list[Instruction]:
        """Go on with what was prepared, once nothing is under way in what runs."""
        if self._prepared is None or not self._prepared.ready or self._batches:
            return []
        self.epoch, self.plan = self._prepared.epoch, self._prepared.plan
        self._prepared = None
        self._losses.rely()
        self._begin(now_s)
        return [
            *self._widen(),
            Activate(self.epoch),
            *self._rewind(),
            *self._feed(now_s, linger=False),
            *self._give_back(),
        ]

    def _widen(self) -> list[Instruction]:
        """As many batches under way as the plan that runs now needs."""
        self._most_batches, before = self.settings.batches_of(self._plans.entries[self.plan]), self._most_batches
        return [Widen(self._most_batches * self.settings.batch)] if self._most_batches > before else []

    def _unprepared(self, event: Unprepared) -> list[Instruction]:
        if not self.prepares(event.epoch):
            return []
        assert self._prepared is not None
        plan, self._prepared = self._prepared.plan, None
        if not event.room:
            self._losses.rely()
            return self._open(plan)
        if event.device in self._plans.devices(self.plan):
            self._losses.fail(event.device, event.now_s)
            return [*self._feed(event.now_s), *self._give_back()]
        self._losses.lose(event.device, event.now_s)
        return [self._losses.probe, *self._feed(event.now_s), *self._give_back()]

    def _device_lost(self, event: DeviceLost) -> list[Instruction]:
        if event.epoch != self.epoch or self.phase in ("failed", "waiting") or event.device in self.lost:
            return []
        stage = event.stage or self._plans.first_stage(self.plan, event.device)
        batch = self._batches.get(event.batch) if event.batch is not None else None
        oldest = min((b.samples[0] for b in self._batches.values()), default=None)
        failure = Failure(event.device, stage, batch.samples[0] if batch else oldest, event.message)
        if not self.settings.failover and not (self._ran and self.settings.recover_s > 0):
            return self._fail(failure)
        self._losses.lose(event.device, event.now_s)
        self._stalled = self._stalled or (event.now_s, failure)
        if (overdue := self._overdue(event.now_s)) is not None:
            return self._give_up_recovery(overdue)
        return [*self._fail_exhausted(failure), *self._choose(), self._losses.probe]

    def _missing(self, event: Missing) -> list[Instruction]:
        """A device was found to be gone while a plan was made without which nothing runs."""
        needed = self._plans.devices(self.plan) if self.phase in ("running", "opening") else ()
        known = event.device in self._membership.members
        if not known or event.device in self.lost or event.device in needed or self.phase == "failed":
            return []
        self._losses.lose(event.device, event.now_s)
        return [self._losses.probe]

    def _overdue(self, now_s: float) -> Failure | None:
        """Why nothing comes out, when that has lasted longer than a recovery may."""
        if self._stalled is None or now_s - self._stalled[0] <= self.settings.recover_s:
            return None
        return self._stalled[1]

    def _give_up_recovery(self, failure: Failure) -> list[Instruction]:
        """Nothing has come out for too long since a device was lost, however often something was opened."""
        why = f"nothing could run again within {self.settings.recover_s:g} s"
        if self._membership.why_none:
            why += f", as there is no plan for the devices that are left: {self._membership.why_none}"
        return self._fail(replace(failure, message=f"{failure.message}; {why}"))

    def _stage_hangs(self, event: DeviceLost) -> list[Instruction]:
        """A device does not get done with a batch. Of another device it may be done; after that it is the batch."""
        number = -1 if event.batch is None else event.batch
        batch = self._batches.get(number)
        if batch is None or event.epoch != self.epoch:
            return self._device_lost(event)
        stage = event.stage or self._plans.first_stage(self.plan, event.device)
        failed: list[Instruction] = []
        guilty = [sample for sample in batch.samples if sample in batch.suspects or not self.settings.failover]
        if guilty and self._histories is not None:
            failed = self._histories.fail(guilty, Failure(event.device, stage, None, event.message))
        elif guilty:
            failed = [Fail(s, Failure(event.device, stage, s, event.message)) for s in guilty]
            del self._batches[number]
        batch.suspects.update(batch.samples)
        return [*failed, *self._device_lost(event)]

    def _fail_exhausted(self, failure: Failure) -> list[Instruction]:
        """Fail the batches that were under way whenever a device was lost: one of them may be why."""
        why = replace(failure, message=f"{failure.message}, as in {MOST_TRIES} openings in a row")
        if self._histories is not None:
            return self._histories.fail(self._histories.exhausted(self._batches.values(), MOST_TRIES), why)
        exhausted = [number for number, batch in self._batches.items() if batch.tries >= MOST_TRIES]
        samples = [sample for number in exhausted for sample in self._batches.pop(number).samples]
        return [Fail(sample, why.of(sample)) for sample in samples]

    def _choose(self) -> list[Instruction]:
        """Open the best plan that needs no lost device; without one, wait, and have one made where that can be."""
        best = self._plans.best({*self.lost, *self._membership.outsiders})
        if best is not None:
            return self._open(best)
        self.phase = "waiting"
        self.epoch = self._new_epoch()
        return self._membership.ask(self.lost, self._plans.speeds, urgent=True) if self.settings.elastic else []

    def _open(self, plan: int) -> list[Instruction]:
        self.epoch = self._new_epoch()
        self.plan = plan
        self.phase = "opening"
        return [Open(self.epoch, plan)]

    def _new_epoch(self) -> int:
        """A number that no opening had. What is being prepared is for nothing."""
        self._prepared = None
        self._epochs += 1
        return self._epochs

    def _returned(self, event: Returned) -> list[Instruction]:
        if event.device not in self.lost:
            return []
        self._losses.come(event.device, event.now_s)
        probe: list[Instruction] = [self._losses.probe]
        return [*probe, *self._choose()] if self.phase == "waiting" else probe

    def _tick(self, event: Tick) -> list[Instruction]:
        if self.phase in ("opening", "waiting") and (overdue := self._overdue(event.now_s)) is not None:
            return self._give_up_recovery(overdue)
        if self.phase != "running":
            return []
        for device in self._plans.devices(self.plan):
            silent_s = event.now_s - self._seen[device]
            if silent_s > deadlines.SILENCE_S:
                return self._device_lost(
                    DeviceLost(self.epoch, device, f"nothing was heard of it for {silent_s:.1f} s", event.now_s)
                )
        late = self._late(event.now_s)
        if late is not None:
            return self._stage_hangs(late)
        return [*self._improve(event.now_s), *self._feed(event.now_s)]

    def _improve(self, now_s: float) -> list[Instruction]:
        """Make a better plan ready, or ask for one, once devices that came have stayed for a while."""
        if self._prepared is not None or not self._losses.stayed(now_s):
            return []
        away = {*self.lost, *self._membership.outsiders}
        best = self._plans.best(away)
        if best is not None and best != self.plan:
            least = BETTER * self._plans.figure(self.plan)
            if best == 0 or self._plans.figure(best) < least or away.intersection(self._plans.devices(self.plan)):
                self._prepared = _Prepared(self._new_epoch(), best)
                return [Prepare(self._prepared.epoch, best)]
        needed = best is None and bool(away.intersection(self._plans.devices(self.plan)))
        if self.settings.elastic and self._membership.unplanned(self.lost, needed=needed):
            return self._membership.ask(self.lost, self._plans.speeds, urgent=False)
        return []

    def _members(self, event: Joined | Leaving | Measured | Proposed | PlanReady | PlanFailed) -> list[Instruction]:
        """Devices come and go, and plans are made for those that are there."""
        membership = self._membership
        if self.phase == "failed":
            return []
        if isinstance(event, Joined):
            membership.join(event.device)
            looked_for: list[Instruction] = [self._losses.probe] if self._losses.come(event.device, event.now_s) else []
            return [*looked_for, *self._choose()] if self.phase == "waiting" else looked_for
        if isinstance(event, Leaving):
            membership.leaving.add(event.device)
            return self._give_back()
        if isinstance(event, Measured):
            self._plans.speeds = event.speeds
            membership.forget_plans()
            return [Tell(event.sentence())]
        if isinstance(event, Proposed):
            return membership.proposed(event, self._plans.predicted(event.period_s, event.latency_s), self._running())
        if isinstance(event, PlanFailed):
            return membership.failed(event)
        self._plans.add(event.plan, membership.ready(event, self.lost))
        return self._choose() if self.phase == "waiting" else []

    def _running(self) -> Running:
        """What a proposed plan is compared with."""
        devices = self._plans.devices(self.plan)
        if self.phase != "running" or self._membership.leaving.intersection(devices):
            return Running(None, 0.0)
        plan = self._plans.entries[self.plan]
        return Running(self._plans.figure(self.plan), plan.predicted.latency_s)

    def _give_back(self) -> list[Instruction]:
        """Give back devices that are to leave and that nothing needs any more."""
        needed = set(self._plans.devices(self.plan)) if self.phase in ("running", "opening") else set()
        if self._prepared is not None:
            needed.update(self._plans.devices(self._prepared.plan))
        free = sorted(self._membership.leaving.difference(needed))
        for device in free:
            self._membership.leave(device)
        looked_for = [device for device in free if self._losses.leave(device)]
        probe: list[Instruction] = [self._losses.probe] if looked_for else []
        return [*(GiveBack(device) for device in free), *probe]

    def _late(self, now_s: float) -> DeviceLost | None:
        """The loss of the device that holds a batch for longer than all stages together may take.

        A batch may have to wait for all others. But where none comes out at all, the first should long have done so.
        """
        stages = self._plans.most_stages(self.plan)
        silence_s, patience_s = (self.settings.timeout_s * (stages + n) for n in (1, self._most_batches))
        for place, (number, batch) in enumerate(self._batches.items()):
            silent = place == 0 and now_s - max(batch.fed_s, self._heard_s) > silence_s
            if silent or now_s - batch.fed_s > patience_s:
                why = f"the results of a batch did not arrive within {silence_s if silent else patience_s:g} s"
                return DeviceLost(self.epoch, self._progress.holds(number, batch), why, now_s, None, number)
        return None

    def _fail(self, failure: Failure) -> list[Instruction]:
        self.phase, self.failure, self._stalled = "failed", failure, None
        self.epoch = self._new_epoch()
        samples = [sample for batch in self._batches.values() for sample in batch.samples]
        samples += [one.sample for one in self._pending]
        if self._histories is not None:
            samples = self._histories.unanswered
            self._histories.clear()
        self._batches.clear()
        self._pending.clear()
        return [Fail(sample, failure.of(sample)) for sample in sorted(samples)]

    def _closed(self) -> list[Instruction]:
        instructions = self._fail(_CLOSED)
        self.phase = "closed"
        return instructions


_CLOSED = Failure(None, None, None, "the pipeline was closed before the sample was done")


def replay(manifest: Manifest, settings: Settings, events: Iterable[Event]) -> list[Sequence[Instruction]]:
    """The instructions that a log of events leads to, those of the start first."""
    machine = StateMachine(manifest, settings)
    return [machine.start(), *(machine.handle(event) for event in events)]
