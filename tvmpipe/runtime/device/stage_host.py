"""Stages on a device: tensors in, stages run as soon as they can, tensors out to whoever needs them.

The messaging library's own threads move bytes; this loop only takes what has arrived, computes, and hands over what
is to leave. So receiving, computing and sending overlap, and a stage computes while its neighbours' tensors travel.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import zmq
from numpy.typing import NDArray

from tvmpipe.errors import DeviceError, reason_of
from tvmpipe.manifest import StageEntry
from tvmpipe.runtime.device.router import Router, Task, TaskQueue
from tvmpipe.runtime.device.spec import HostSpec
from tvmpipe.runtime.device.states import HeldStates, StateStore
from tvmpipe.runtime.device.step_order import StepOrder
from tvmpipe.runtime.device.totals import Spans, StageCount
from tvmpipe.runtime.transport import deadlines, wire
from tvmpipe.runtime.transport.sender import Sender

logger = logging.getLogger(__name__)

_MESSAGES_A_TURN = 64
_MOST_FAULT_CHARACTERS = 1000


class Stages(Protocol):
    """Computes the stages of a host: here, or on a device that cannot host them itself."""

    def run(self, stage: str, batch: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of a loaded stage, in the bundle's order, valid for as long as they are referred to.

        Raises DeviceError where the device is at fault, anything else where the sample is.
        """
        ...


@dataclass(frozen=True)
class Busy:
    """What is being computed, and since when (monotonic seconds)."""

    stage: str
    batch: int
    since: float


@dataclass(frozen=True)
class StageFailure:
    """A stage that the device can no longer run; without a name, what keeps the device from its work."""

    stage: str
    batch: int
    message: str

    def __str__(self) -> str:
        return f"stage {self.stage}: {self.message}" if self.stage else self.message


class StageHost:
    """One device's part of an opened pipeline. `serve` runs in the thread that made the sockets.

    `inbox` is a bound PULL socket, `sender` takes what leaves; it is stopped at the end. `clock` gives seconds of the
    head's clock, `stopped` is set when `serve` shall end soon; a stage that is being computed is finished first.
    Other threads may read `counts`, `busy` and `failure`.

    A sample that a stage raises for is not computed further; what was raised travels on in its place, so that its
    caller hears of it and no other does. Where it is a step of a sequence, the later steps fail for the same reason.

    Raises MemoryError where there is too little memory for the states.
    """

    def __init__(
        self,
        spec: HostSpec,
        stages: Stages,
        inbox: zmq.Socket[bytes],
        sender: Sender,
        *,
        stopped: threading.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.spec = spec
        self.counts = {stage.name: StageCount() for stage in spec.stages}
        self.spans = Spans()
        self.busy: Busy | None = None
        self.failure: StageFailure | None = None
        self.refused = 0
        self.clock = clock
        self._stages = stages
        self._inbox = inbox
        self._sender = sender
        self._stopped = stopped
        self._encodings = {peer.name: peer.encoding for peer in spec.peers}
        self._session = bytes.fromhex(spec.session)
        turns = {peer.name: peer.turn for peer in spec.peers}
        self._router = Router(spec.stages, spec.routes, spec.max_batches, spec.turn, turns, spec.held, spec.announced)
        self._order = StepOrder(spec.stages, spec.states)
        self._states = HeldStates(spec.stages, StateStore(spec.states, spec.slots))
        self._steps: dict[int, tuple[wire.Step, ...]] = {}  # of a model with states, by batch
        self._made = {tensor.value for stage in spec.stages for tensor in stage.outputs}
        tensors = [tensor for stage in spec.stages for tensor in (*stage.inputs, *stage.outputs)]
        self._forms = {tensor.value: tensor.spec.form for tensor in tensors}
        self._reader = {t.value: stage.name for stage in reversed(spec.stages) for t in stage.inputs}
        self._values: dict[int, list[wire.Values]] = {}
        self._plain: set[int] = set()
        self._faults: dict[int, dict[int, wire.Fault]] = {}
        self._tasks = TaskQueue(spec.depths)

    def serve(self) -> None:
        """Work until `stopped` is set or a stage fails."""
        poller = zmq.Poller()
        poller.register(self._inbox, zmq.POLLIN)
        try:
            while not self._stopped.is_set() and self.failure is None:
                self._take()
                if self._tasks:
                    self._compute(self._tasks.take())
                else:
                    poller.poll(int(1e3 * deadlines.HOST_IDLE_S))
                if self._sender.blocked is not None:
                    # The head lets only `max_batches` in, which the queue holds; so nobody takes what is sent.
                    self.failure = StageFailure("", 0, f"the link to {self._sender.blocked} is blocked")
        finally:
            self._sender.stop()

    def _take(self) -> None:
        """Take in what has arrived."""
        for _ in range(_MESSAGES_A_TURN):
            try:
                frames = wire.receive(self._inbox)
            except zmq.Again:
                return
            self._arrive(frames)

    def _arrive(self, frames: list[Any]) -> None:
        try:
            if wire.session_of(frames) != self._session:
                raise wire.WireError("a message of another session")
            batch = wire.unpack(frames, self.spec.limit_bytes)
            if not all(wire.fits(sample, self._forms) for sample in batch.samples):
                raise wire.WireError("a tensor of another shape or type")
        except wire.WireError as error:
            return self._refuse(str(error))
        known = self._values.get(batch.number)
        if known is not None and len(known) != len(batch.samples):
            return self._refuse("another number of samples than came before")
        if self.spec.states and not self._takes_steps(batch):
            return self._refuse("samples that are no steps of the sequences here")
        tasks = self._router.arrive(batch.number, batch.samples[0].keys(), batch.bucket)
        if tasks is None and batch.samples[0] and batch.samples[0].keys() <= self._made:
            names = ", ".join(f"{peer.name} at {peer.address}" for peer in self.spec.peers)
            text = f"what it sends comes back to it: one of the addresses of {names} leads to {self.spec.device} itself"
            self.failure = StageFailure("", batch.number, text)
            return None
        if tasks is None:
            return self._refuse("values that nothing here waits for")
        if batch.plain:
            self._plain.add(batch.number)
        if batch.faults:
            self._faults.setdefault(batch.number, {}).update(batch.faults)
        known = self._values.setdefault(batch.number, [{} for _ in batch.samples])
        for have, new in zip(known, batch.samples, strict=True):
            have.update(new)
        now = self.clock()
        # A message counts for the first stage that reads from it.
        stage = next((self._reader[value] for value in batch.samples[0]), self.spec.stages[0].name)
        self.counts[stage].receive_s += max(0.0, now - batch.sent_s)
        if self.spec.trace:
            self.spans.add(("receive", stage, batch.number, min(batch.sent_s, now), now))
        if batch.steps:
            self._steps[batch.number] = batch.steps
            tasks = tuple(self._order.admit(tasks, batch.steps))
        self._tasks.add(tasks)

    def _takes_steps(self, batch: wire.Batch) -> bool:
        """Whether every sample of a batch is a step that there is a slot for, and the one that it was before."""
        steps = batch.steps
        known = self._steps.get(batch.number, steps)
        return len(steps) == len(batch.samples) and known == steps and all(s.slot < self.spec.slots for s in steps)

    def _refuse(self, reason: str) -> None:
        """Say so once; whoever sends rubbish must not fill the log."""
        if not self.refused:
            logger.warning("device %s refused a message: %s", self.spec.device, reason)
        self.refused += 1

    def _compute(self, task: Task) -> None:
        stage = task.stage
        samples = self._values[task.batch]
        began = self.clock()
        self.busy = Busy(stage.name, task.batch, time.monotonic())
        seconds = []
        try:
            for place, sample in enumerate(samples):
                seconds.append(self._compute_one(stage, task.batch, place, sample))
        except DeviceError as error:
            self.failure = StageFailure(stage.name, task.batch, reason_of(error))
            return
        finally:
            self.busy = None
        computed = self.clock()
        self._finish(task, samples)
        count = self.counts[stage.name]
        count.computed(seconds)
        sent = self.clock()
        count.send_s += max(0.0, sent - computed)  # the head's clock may have been learned in between
        if self.spec.trace:
            self.spans.add(("compute", stage.name, task.batch, began, computed))
            self.spans.add(("send", stage.name, task.batch, computed, sent))

    def _compute_one(self, stage: StageEntry, batch: int, place: int, sample: wire.Values) -> float:
        """Run a stage on the sample at `place` of a batch, adding its outputs to it. Returns seconds."""
        started = time.perf_counter()
        step = self._steps[batch][place] if batch in self._steps else None
        if step is not None and (lost := self._states.bring(stage.name, step, sample)) is not None:
            self._faults.setdefault(batch, {}).setdefault(place, lost)
        for tensor, array in zip(stage.outputs, self._outputs(stage, batch, place, sample), strict=True):
            sample[tensor.value] = np.asarray(array)
        if step is not None:
            self._states.keep(stage.name, step, sample, self._faults.get(batch, {}).get(place))
        return time.perf_counter() - started

    def _outputs(self, stage: StageEntry, batch: int, place: int, sample: wire.Values) -> list[NDArray[Any]]:
        """What a stage makes of a sample; zeros where it raises, or an earlier stage has."""
        if place not in self._faults.get(batch, ()):
            try:
                return self._stages.run(stage.name, batch, [sample[tensor.value] for tensor in stage.inputs])
            except DeviceError:
                raise
            except Exception as error:  # noqa: BLE001  # TVM raises many types; the caller must hear of any
                fault = wire.Fault(self.spec.device, stage.name, reason_of(error)[:_MOST_FAULT_CHARACTERS])
                self._faults.setdefault(batch, {})[place] = fault
        return [np.zeros(tensor.spec.shape, tensor.spec.dtype) for tensor in stage.outputs]

    def _finish(self, task: Task, samples: list[wire.Values]) -> None:
        outcome = self._router.done(task)
        steps = self._steps.get(task.batch, ())
        for receiver, values in outcome.sends.items():
            parts = tuple({value: sample[value] for value in values} for sample in samples)
            plain, faults = task.batch in self._plain, self._faults.get(task.batch, {})
            bucket = task.stage.bucket
            batch = wire.Batch(self._session, task.batch, parts, plain, self.clock(), faults, bucket, steps)
            frames = wire.pack(batch, self._encodings[receiver])
            self._sender.send(receiver, frames)
        if outcome.finished:
            del self._values[task.batch]
            self._plain.discard(task.batch)
            self._faults.pop(task.batch, None)
            self._steps.pop(task.batch, None)
        else:
            for sample in samples:
                for value in outcome.free:
                    sample.pop(value, None)
        if steps:
            self._tasks.add(self._order.done(task, steps))
            self._tasks.add(self._order.admit(outcome.tasks, steps))
        else:
            self._tasks.add(outcome.tasks)
