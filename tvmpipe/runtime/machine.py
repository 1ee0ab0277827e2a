"""What the executor decides: a function of events to instructions, with no clock, thread, socket or tensor in it.

Samples go into batches, batches into the pipeline while fewer than `max_batches` are under way. A batch is answered
once, when its last result has come in. When a device is lost every batch under way is fed again into the next opening,
on the first plan that needs none of the lost devices; answers of an earlier opening count for nothing. Without
failover the pipeline fails instead, and everything that was not answered with it.

The same events always give the same instructions, so that a log of events replays a run (`replay`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tvmpipe.manifest import Manifest
from tvmpipe.runtime.events import (
    Answer,
    Arrived,
    Closed,
    DeviceLost,
    Event,
    Fail,
    Failure,
    Feed,
    Instruction,
    Open,
    Opened,
    Probe,
    Returned,
    Submitted,
    Tick,
)

LINGER_S = 0.002
SILENCE_S = 1.6  # a device that has not been heard for so long is lost
RETURN_S = 2.0  # how long a device must have been back before the better plan is taken up again
LONGEST_RETURN_S = 60.0  # twice as long after each further loss, but at most this
_FORGIVEN_S = 2 * LONGEST_RETURN_S  # losses further apart than this do not count as one after another


@dataclass(frozen=True)
class Settings:
    """How the executor behaves.

    Attributes: `batch` samples that travel together; `max_batches` under way at once; `failover` whether to go on
    without a lost device; `timeout_s` the longest that one stage may take for a batch, and that a batch may take for
    each stage it has to pass; `recover_s` how long to wait for devices when no plan can do without the lost ones.
    """

    batch: int = 1
    max_batches: int = 4
    failover: bool = False
    timeout_s: float = 60.0
    recover_s: float = 60.0


@dataclass
class _Batch:
    samples: tuple[int, ...]
    fed_s: float
    there: set[int] = field(default_factory=set)


class Machine:
    """The executor's state. `handle` takes one event and returns what is to be done about it, in order."""

    def __init__(self, manifest: Manifest, settings: Settings) -> None:
        self.settings = settings
        self.epoch = 0
        self.plan = 0
        self.phase = "new"  # new, opening, running, waiting, failed, closed
        self.failure: Failure | None = None
        self.lost: dict[str, tuple[float, Failure]] = {}
        self._losses: dict[str, tuple[float, int]] = {}  # when a device was last lost, and how often in a row
        self._devices = [plan.devices for plan in manifest.plans]
        self._first_stage = [{s.device: s.name for s in reversed(plan.stages)} for plan in manifest.plans]
        self._stages = [sum(stage.turn.place == 0 for stage in plan.stages) for plan in manifest.plans]
        self._results = frozenset(manifest.model_outputs.values()) - frozenset(manifest.model_inputs.values())
        self._pending: deque[tuple[int, float]] = deque()
        self._batches: dict[int, _Batch] = {}
        self._next_batch = 0
        self._seen: dict[str, float] = {}
        self._back: dict[str, float] = {}
        self._waiting_since = 0.0

    @property
    def under_way(self) -> int:
        """Batches in the pipeline."""
        return len(self._batches)

    @property
    def lingers(self) -> bool:
        """Whether an incomplete batch waits for more samples, so that ticks must come soon."""
        return bool(self._pending) and self.phase == "running" and len(self._batches) < self.settings.max_batches

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
        if isinstance(event, DeviceLost):
            return self._device_lost(event)
        if isinstance(event, Returned):
            return self._returned(event)
        if isinstance(event, Closed):
            return self._closed()
        if isinstance(event, Tick):
            return self._tick(event)
        self._seen[event.device] = max(event.now_s, self._seen.get(event.device, 0.0))
        if event.busy is not None and event.epoch == self.epoch and event.busy[2] > self.settings.timeout_s:
            stage, batch, seconds = event.busy
            why = f"stage {stage} has been computing for {seconds:.1f} s, longer than the {self.settings.timeout_s:g} s"
            return self._device_lost(DeviceLost(event.epoch, event.device, f"{why} allowed", event.now_s, stage, batch))
        return []

    def start(self) -> list[Instruction]:
        """Open the first plan."""
        return self._open(0)

    def _submitted(self, event: Submitted) -> list[Instruction]:
        if self.phase == "failed":
            assert self.failure is not None
            return [Fail(event.sample, self.failure)]
        self._pending.append((event.sample, event.now_s))
        return self._feed(event.now_s)

    def _feed(self, now_s: float, *, linger: bool = True) -> list[Instruction]:
        """Batches for what waits, as far as there is room.

        An incomplete one lingers while others are under way: a sample that comes alone need not wait for company.
        """
        instructions: list[Instruction] = []
        size = self.settings.batch
        while self._pending and self.phase == "running" and len(self._batches) < self.settings.max_batches:
            lingers = linger and self._batches and now_s - self._pending[0][1] < LINGER_S
            if len(self._pending) < size and lingers:
                break
            samples = tuple(self._pending.popleft()[0] for _ in range(min(size, len(self._pending))))
            number, self._next_batch = self._next_batch, self._next_batch + 1
            self._batches[number] = _Batch(samples, now_s)
            instructions.append(Feed(self.epoch, number, samples))
            if not self._results:
                instructions += self._complete(number)
        return instructions

    def _arrived(self, event: Arrived) -> list[Instruction]:
        batch = self._batches.get(event.batch)
        if event.epoch != self.epoch or batch is None:
            return []
        batch.there.update(event.values)
        if not batch.there >= self._results:
            return []
        return [*self._complete(event.batch), *self._feed(event.now_s)]

    def _complete(self, number: int) -> list[Instruction]:
        batch = self._batches.pop(number)
        return [Answer(sample, number, place) for place, sample in enumerate(batch.samples)]

    def _opened(self, event: Opened) -> list[Instruction]:
        if event.epoch != self.epoch or self.phase != "opening":
            return []
        self.phase = "running"
        self._seen = dict.fromkeys(self._devices[self.plan], event.now_s)
        instructions: list[Instruction] = []
        for number, batch in self._batches.items():
            batch.there.clear()
            batch.fed_s = event.now_s
            instructions.append(Feed(self.epoch, number, batch.samples))
        return [*instructions, *self._feed(event.now_s, linger=False)]

    def _device_lost(self, event: DeviceLost) -> list[Instruction]:
        if event.epoch != self.epoch or self.phase in ("failed", "waiting") or event.device in self.lost:
            return []
        stage = event.stage or self._first_stage[self.plan].get(event.device)
        batch = self._batches.get(event.batch) if event.batch is not None else None
        oldest = min((b.samples[0] for b in self._batches.values()), default=None)
        failure = Failure(event.device, stage, batch.samples[0] if batch else oldest, event.message)
        if not self.settings.failover:
            return self._fail(failure)
        self.lost[event.device] = (event.now_s, failure)
        last_s, losses = self._losses.get(event.device, (event.now_s, 0))
        self._losses[event.device] = event.now_s, losses + 1 if event.now_s - last_s < _FORGIVEN_S else 1
        self._back.pop(event.device, None)
        self._waiting_since = event.now_s
        return [*self._choose(), Probe(tuple(sorted(self.lost)))]

    def _choose(self) -> list[Instruction]:
        """Open the first plan that needs no lost device; without one, wait."""
        for position, devices in enumerate(self._devices):
            if not set(devices) & self.lost.keys():
                return self._open(position)
        self.phase = "waiting"
        self.epoch += 1
        return []

    def _open(self, plan: int) -> list[Instruction]:
        self.epoch += 1
        self.plan = plan
        self.phase = "opening"
        return [Open(self.epoch, plan)]

    def _returned(self, event: Returned) -> list[Instruction]:
        if event.device not in self.lost:
            return []
        del self.lost[event.device]
        self._back[event.device] = event.now_s
        probe: list[Instruction] = [Probe(tuple(sorted(self.lost)))]
        return [*probe, *self._choose()] if self.phase == "waiting" else probe

    def _tick(self, event: Tick) -> list[Instruction]:
        if self.phase == "waiting" and event.now_s - self._waiting_since > self.settings.recover_s:
            _, failure = next(iter(self.lost.values()))
            return self._fail(failure)
        if self.phase != "running":
            return []
        for device in self._devices[self.plan]:
            silent_s = event.now_s - self._seen[device]
            if silent_s > SILENCE_S:
                return self._device_lost(
                    DeviceLost(self.epoch, device, f"nothing was heard of it for {silent_s:.1f} s", event.now_s)
                )
        patience_s = self.settings.timeout_s * (self._stages[self.plan] + self.settings.max_batches)
        for number, batch in self._batches.items():
            if event.now_s - batch.fed_s > patience_s:
                device = self._devices[self.plan][-1]
                why = f"the results of a batch did not arrive within {patience_s:g} s"
                return self._device_lost(DeviceLost(self.epoch, device, why, event.now_s, None, number))
        better = self.plan and not set(self._devices[0]) & self.lost.keys()
        if better and all(event.now_s - since > self._probation_s(name) for name, since in self._back.items()):
            self._back.clear()
            return self._open(0)
        return self._feed(event.now_s)

    def _probation_s(self, device: str) -> float:
        """How long a device must have been back: longer for one that was lost again and again."""
        return float(min(RETURN_S * 2 ** (self._losses[device][1] - 1), LONGEST_RETURN_S))

    def _fail(self, failure: Failure) -> list[Instruction]:
        self.phase, self.failure = "failed", failure
        self.epoch += 1
        samples = [sample for batch in self._batches.values() for sample in batch.samples]
        samples += [sample for sample, _ in self._pending]
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
    machine = Machine(manifest, settings)
    return [machine.start(), *(machine.handle(event) for event in events)]
