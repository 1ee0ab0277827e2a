"""The head's own thread: carries out what the executor's state machine decides, and tells it what happened."""

from __future__ import annotations

import functools
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TextIO

import numpy as np
import zmq
from pydantic import ValidationError

from tvmpipe.errors import InputError, TvmpipeError
from tvmpipe.manifest import HEAD, Manifest, PlanEntry
from tvmpipe.runtime.device.status import Status
from tvmpipe.runtime.device.totals import StageCount
from tvmpipe.runtime.head import events
from tvmpipe.runtime.head import instructions as do
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.head.drift import Drift
from tvmpipe.runtime.head.event_log import EventLog
from tvmpipe.runtime.head.events import Event
from tvmpipe.runtime.head.input_sender import InputSender
from tvmpipe.runtime.head.newcomers import Newcomers
from tvmpipe.runtime.head.opened import HeadEnd, NoRoomError, Opened, OpenError, PlanDeployer
from tvmpipe.runtime.head.plan_maker import PlanMaker
from tvmpipe.runtime.head.replanner import Replanner, extended, with_device
from tvmpipe.runtime.head.sample import Result, join_steps
from tvmpipe.runtime.head.sequences import Extent
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.head.state_machine import StateMachine
from tvmpipe.runtime.head.telemetry import Telemetry
from tvmpipe.runtime.head.wakeup import Wakeup
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.security.refusals import Refusals
from tvmpipe.runtime.transport import deadlines, wire
from tvmpipe.runtime.transport.queues import queue_length
from tvmpipe.runtime.transport.sockets import Sockets, head_hosts

logger = logging.getLogger(__name__)

_MESSAGES_A_TURN = 256
_STATUSES = 16  # of one device that wait to be heard
_GONE = "broke or could not be made"
_NOT_ELASTIC = "devices come and go with elastic pipelines only: compile with --elastic, and connect with a replanner"


@dataclass(frozen=True)
class Callbacks:
    """Whom the head tells: a sample's results or failure, that the slot of a sequence is free again, that the pipeline
    runs (or has failed) now, each tick, a sentence on what was decided, that so many samples may be under way, that a
    device was given back (or why not), and that the head itself has failed, so that nothing will be answered any more.
    """

    answer: Callable[[int, Result], None]
    fail: Callable[[int, do.Failure], None]
    freed: Callable[[int], None]
    phase: Callable[[str, do.Failure | None], None]
    tick: Callable[[], None]
    told: Callable[[str], None]
    widened: Callable[[int], None]
    left: Callable[[str, str | None], None]
    crashed: Callable[[do.Failure], None]


class Head:
    """Sockets, tensors and the state machine, in one thread; `submit` and `close` may be called from any.

    The opening of a plan and the search for lost devices happen in threads of their own.
    """

    def __init__(
        self,
        manifest: Manifest,
        settings: Settings,
        key: ClusterKey | None,
        deployer: PlanDeployer,
        callbacks: Callbacks,
        log: TextIO | None = None,
        replanner: Replanner | None = None,
    ) -> None:
        self._settings = settings
        self.deployer = deployer
        self.telemetry = Telemetry(manifest)
        self.cause: TvmpipeError | None = None
        self._manifest = manifest
        self._state_machine = StateMachine(manifest, settings)
        self._callbacks = callbacks
        self._log = EventLog(log)
        self._events: deque[tuple[Event, Any]] = deque()
        self._inputs: dict[int, tuple[Result, int, bool]] = {}  # with their bucket, and whether links leave them be
        self._buckets = manifest.buckets
        self._arrived: dict[int, list[wire.Values]] = {}
        self._epoch_of: dict[str, int] = {}
        self._opened: Opened | None = None
        self._prepared: dict[int, Opened] = {}  # by epoch
        self._device_of = {stage.name: stage.device for plan in manifest.plans for stage in plan.stages}
        self._deploying: list[threading.Thread] = []
        self._wanted: tuple[str, ...] = ()
        self._forms = {
            bucket.model_outputs[spec.name]: spec.form for bucket in self._buckets for spec in bucket.outputs
        }
        # A device sends no more than the results.
        self._limit_bytes = max(sum(spec.most_bytes for spec in bucket.outputs) for bucket in self._buckets)
        self._sockets = Sockets(key)
        self._refusals = Refusals(logger, "the head")
        self._input_sender = InputSender(manifest, self._sockets)
        where = head_hosts(key)
        frame_bytes = max((spec.most_bytes for bucket in self._buckets for spec in bucket.outputs), default=0)
        queue = queue_length(settings.max_batches, len(manifest.model.outputs))
        self._results, results_port = self._sockets.pull(where, queue=queue, max_frame_bytes=frame_bytes + 65536)
        self._statuses, status_port = self._sockets.router(where, queue=_STATUSES, max_frame_bytes=16 << 20)
        self._wakeup = Wakeup()
        self._stopped = threading.Event()
        # A device that makes no results may be behind the others by the last step of each sequence.
        self._behind = 0 if manifest.sequences is None else manifest.sequences.count
        self._end = HeadEnd(results_port, status_port, settings.max_batches + self._behind, self.telemetry.heard)
        self._newcomers: Newcomers | None = None
        self._drift = Drift(deadlines.DRIFT_S)
        self._measured_s = 0.0
        self._answered = 0
        self._maker = None if replanner is None else PlanMaker(replanner, deployer, self._post)
        self._thread = threading.Thread(target=self._work, name="tvmpipe-head", daemon=True)
        self._prober = threading.Thread(target=self._probe, name="tvmpipe-prober", daemon=True)

    @property
    def manifest(self) -> Manifest:
        """The bundle's, with the devices and plans that have come since."""
        return self._manifest

    @property
    def plan(self) -> PlanEntry:
        """The plan that is open, or was last; before, the one to start with."""
        return self._manifest.plan if self._opened is None else self._opened.plan

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices of the plan that is open, or was last."""
        return () if self._opened is None else self._opened.plan.devices

    @property
    def lost(self) -> tuple[str, ...]:
        """Devices that are looked for."""
        return self._wanted

    def start(self) -> None:
        """Begin to open the first plan."""
        self._thread.start()
        self._prober.start()

    def submit(
        self, number: int, inputs: Result, *, bucket: int = 0, plain: bool = False, extent: Extent | None = None
    ) -> None:
        """A sample of a bucket, which may be the next step of a sequence, that stands there.

        `plain` asks links to leave its tensors as they are.
        """
        self._inputs[number] = (inputs, bucket, plain)
        place = () if extent is None else (extent.sequence, extent.start, extent.elements)
        self._post(events.Submitted(number, time.monotonic(), bucket, *place))

    def begin(self, sequence: int, slot: int) -> None:
        """A sequence has a slot from now on."""
        self._post(events.Began(sequence, slot, time.monotonic()))

    def cut(self, sequence: int, samples: tuple[int, ...]) -> None:
        """What these steps of a sequence have left counts for none that is submitted from now on."""
        self._post(events.Cut(sequence, samples, time.monotonic()))

    def end(self, sequence: int) -> None:
        """No more steps of a sequence come."""
        self._post(events.Ended(sequence, time.monotonic()))

    def join(self, name: str, key: str, table: Mapping[str, Any], facts: AgentFacts | None = None) -> Future[None]:
        """Have plans made with a device; what keeps it from that is raised by the future."""
        if self._maker is None:
            raise InputError(_NOT_ELASTIC)
        return self._maker.join(name, key, table, facts)

    def leave(self, device: str) -> None:
        """Do without a device, and give it back."""
        if self._maker is None:
            raise InputError(_NOT_ELASTIC)
        if all(one.name != device for one in self._manifest.devices):
            known = ", ".join(one.name for one in self._manifest.devices)
            raise InputError(f"{device!r} is no device of this pipeline; its devices are {known}")
        self._post(events.Leaving(device, time.monotonic()))

    def watch(self) -> None:
        """From now on devices that register with the tracker join by themselves."""
        if self._maker is None:
            raise InputError(_NOT_ELASTIC)
        self._newcomers = Newcomers(self.deployer, self._known, self._welcome, self._vanished)

    def close(self) -> None:
        """Fail what is not answered, and end the threads. The devices are given back."""
        self._post(events.Closed(time.monotonic()))
        self._stopped.set()
        self._thread.join()
        if self._newcomers is not None:
            self._newcomers.close()
        if self._maker is not None:
            self._maker.close()
        self.deployer.close()
        for thread in (self._prober, *self._deploying):
            thread.join(timeout=deadlines.JOIN_S)
        self._wakeup.close()
        self._log.close()

    def _post(self, event: Event, extra: Any = None) -> None:
        self._events.append((event, extra))
        self._wakeup.wake()

    def _work(self) -> None:
        poller = zmq.Poller()
        poller.register(self._results, zmq.POLLIN)
        poller.register(self._statuses, zmq.POLLIN)
        poller.register(self._wakeup.descriptor, zmq.POLLIN)
        last_tick = 0.0
        try:
            self._carry_out(self._state_machine.start())
            while self._state_machine.phase != "closed":
                poller.poll(int(1e3 * (deadlines.LINGER_S if self._state_machine.lingers else deadlines.TICK_S)))
                # What has come in is heard before anybody is blamed for silence: this thread may have been stopped.
                more = self._take_results()
                self._take_statuses()
                self._take_events()
                now = time.monotonic()
                # While more has come in than was heard, nobody is silent; but whoever sends without end stops no clock.
                due_s = deadlines.LATEST_TICK_S if more else 0.0 if self._state_machine.lingers else deadlines.TICK_S
                if now - last_tick > due_s:
                    self._watch_links()
                    self._handle(events.Tick(now))
                    self._callbacks.tick()
                    self._measure(now)
                    last_tick = now
        except Exception as error:  # whatever it is, nobody may wait for ever
            logger.exception("the head failed")
            self._callbacks.crashed(do.Failure(None, None, None, f"the head failed: {error}"))
        finally:
            self._sockets.close()

    def _measure(self, now: float) -> None:
        """Look whether devices and links are as fast as the plan counts on."""
        if self._maker is None or now - self._measured_s < deadlines.MEASURE_S:
            return
        self._measured_s = now
        expected = self._state_machine.expected
        if expected is None:
            return
        counts, full = self.telemetry.counts(), self._state_machine.full
        speeds = self._drift.look(now, expected, counts, self._answered, full=full)
        if speeds is not None:
            links = tuple((first, second, factor) for (first, second), factor in speeds.links.items())
            self._handle(events.Measured(tuple(speeds.devices.items()), links, now))

    def _handle(self, event: Event) -> None:
        self._log.write(event)
        before = self._state_machine.phase
        self._carry_out(self._state_machine.handle(event))
        if self._state_machine.phase != before:
            self._callbacks.phase(self._state_machine.phase, self._state_machine.failure)

    def _carry_out(self, instructions: list[do.Instruction]) -> None:
        for one in instructions:
            if isinstance(one, do.Feed):
                self._feed(one)
            elif isinstance(one, do.Answer):
                self._answer(one)
            elif isinstance(one, do.Fail):
                self._inputs.pop(one.sample, None)
                self._callbacks.fail(one.sample, one.failure)
            elif isinstance(one, do.Forget):
                for sample in one.samples:
                    del self._inputs[sample]
            elif isinstance(one, do.Join):
                steps = [self._inputs.pop(sample) for sample in one.samples]
                joined = join_steps(self._manifest, [inputs for inputs, _, _ in steps], one.elements, one.bucket)
                self._inputs[one.samples[0]] = joined, one.bucket, any(plain for _, _, plain in steps)
            elif isinstance(one, do.Freed):
                self._callbacks.freed(one.sequence)
            elif isinstance(one, do.Open):
                self._open(one)
            elif isinstance(one, do.Prepare):
                self._prepare(one)
            elif isinstance(one, do.Activate):
                self._activate(one)
            elif isinstance(one, do.Probe):
                self._wanted = one.devices
            else:
                self._change(one)
        if self._state_machine.phase in ("failed", "closed"):
            self._arrived.clear()

    def _change(self, one: do.Replan | do.Compile | do.GiveBack | do.Refused | do.Widen | do.Tell) -> None:
        """What concerns who takes part."""
        if isinstance(one, do.Tell):
            logger.info("%s", one.sentence)
            self._callbacks.told(one.sentence)
        elif isinstance(one, do.Widen):
            self._callbacks.widened(one.samples)
        elif isinstance(one, do.GiveBack):
            self._begin(functools.partial(self._give_back, one.device))
        elif isinstance(one, do.Refused):
            self._callbacks.left(one.device, one.message)
        elif self._maker is not None:
            if isinstance(one, do.Replan):
                self._maker.replan(one, self._manifest.plans)
            else:
                self._maker.compile(one)

    def _give_back(self, device: str) -> None:
        self.deployer.give_back(device)
        self._callbacks.left(device, None)

    def _open(self, one: do.Open) -> None:
        """Open a plan in a thread of its own; how it went comes back as an event."""
        self._input_sender.disconnect()
        self._arrived.clear()
        plan = self._manifest.plans[one.plan]

        end = self._end_for(plan)

        def work() -> None:
            try:
                opened = self.deployer.open(plan, end)
            except OpenError as error:
                self.cause = error.cause
                lost = events.DeviceLost(one.epoch, error.device, str(error), time.monotonic())
                self._post(lost)
            except Exception as error:  # a fault in this program: the caller must hear of it
                logger.exception("opening failed")
                self._post(events.DeviceLost(one.epoch, plan.devices[0], f"opening failed: {error}", time.monotonic()))
            else:
                self._post(events.Opened(one.epoch, time.monotonic()), opened)

        self._begin(work)

    def _prepare(self, one: do.Prepare) -> None:
        """Make a plan ready beside the one that runs, in a thread of its own."""
        plan = self._manifest.plans[one.plan]

        def failed(device: str, error: Exception, *, room: bool) -> None:
            self._post(events.Unprepared(one.epoch, device, str(error), room, time.monotonic()))

        end = self._end_for(plan)

        def work() -> None:
            began, sent_bytes = time.monotonic(), self.deployer.sent_bytes
            try:
                prepared = self.deployer.prepare(plan, end)
            except NoRoomError as error:
                failed(error.device, error, room=False)
            except OpenError as error:
                failed(error.device, error, room=True)
            except Exception as error:  # a fault in this program: what runs goes on
                logger.exception("preparing failed")
                failed(plan.devices[0], error, room=True)
            else:
                if self._maker is not None:
                    self._maker.opened(time.monotonic() - began, self.deployer.sent_bytes - sent_bytes)
                self._post(events.Prepared(one.epoch, time.monotonic()), prepared)

        self._begin(work)

    def _activate(self, one: do.Activate) -> None:
        """From now on what was prepared is fed; what ran before ends."""
        prepared = self._prepared.pop(one.epoch)
        self._input_sender.disconnect()
        self._connect(one.epoch, prepared)
        self._begin(lambda: self.deployer.activate(prepared))

    def _begin(self, work: Callable[[], None]) -> None:
        """Do something with the devices in a thread of its own."""
        self._deploying = [thread for thread in self._deploying if thread.is_alive()]

        def guarded() -> None:
            try:
                work()
            except OpenError as error:
                logger.info("devices were not told: %s", error)  # closing; what they host ends with its lease

        thread = threading.Thread(target=guarded, name="tvmpipe-deployer", daemon=True)
        self._deploying.append(thread)
        thread.start()

    def _connect(self, epoch: int, opened: Opened) -> None:
        self._opened = opened
        self._epoch_of = {opened.session: epoch}
        self._input_sender.connect(opened)

    def _feed(self, one: do.Feed) -> None:
        samples = [self._inputs[number] for number in one.samples]
        bucket = self._buckets[one.bucket]
        given = bucket.model_outputs.values()
        self._arrived[one.batch] = [
            {v: inputs[n] for n, v in bucket.model_inputs.items() if v in given} for inputs, _, _ in samples
        ]
        plain = any(asked for _, _, asked in samples)
        inputs = [given for given, _, _ in samples]
        self._input_sender.send(one.batch, inputs, plain=plain, bucket=one.bucket, steps=one.steps)

    def _answer(self, one: do.Answer) -> None:
        values = self._arrived[one.batch][one.place]
        _, bucket, _ = self._inputs[one.sample]
        if self._manifest.sequences is None:
            del self._inputs[one.sample]
        outputs = {name: np.array(values[value]) for name, value in self._buckets[bucket].model_outputs.items()}
        if one.place == len(self._arrived[one.batch]) - 1:
            del self._arrived[one.batch]
        self._answered += 1
        self._callbacks.answer(one.sample, outputs)

    def _take_results(self) -> bool:
        """Take in what has arrived. Returns whether there may be more."""
        for _ in range(_MESSAGES_A_TURN):
            try:
                frames = wire.receive(self._results)
            except zmq.Again:
                return False
            self._take_result(frames)
        return True

    def _take_result(self, frames: list[Any]) -> None:
        epoch = self._epoch_of.get(wire.session_of(frames).hex())
        if epoch is None:
            return  # of an earlier opening, or of no pipeline
        try:
            batch = wire.unpack(frames, self._limit_bytes)
            known = self._arrived.get(batch.number)
            if known is None or epoch != self._state_machine.epoch:
                return
            if len(batch.samples) != len(known) or not all(wire.fits(one, self._forms) for one in batch.samples):
                raise wire.WireError("results of another shape")
            if not all(fault.stage in self._device_of for fault in batch.faults.values()):
                raise wire.WireError("a fault of no stage")
        except wire.WireError as error:
            self._refusals.note("a sender", "its result is none", error)
            return
        for have, new in zip(known, batch.samples, strict=True):
            have.update(new)
        faults = tuple((place, self._device_of[f.stage], f.stage, f.message) for place, f in batch.faults.items())
        self._handle(events.Arrived(epoch, batch.number, tuple(batch.samples[0]), time.monotonic(), faults))
        if not self._state_machine.knows(batch.number):
            self._arrived.pop(batch.number, None)  # where its last sample failed, no answer has done this
        if self._manifest.sequences is not None:  # with it others may be done, which had to wait for their turn
            for number in [number for number in self._arrived if not self._state_machine.knows(number)]:
                del self._arrived[number]

    def _take_statuses(self) -> None:
        for _ in range(_MESSAGES_A_TURN):  # whoever sends without end is read no faster than this
            try:
                identity, message = self._statuses.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except ValueError:
                continue  # not two frames: not from a device
            try:
                status = Status.model_validate_json(message)
                self._take_status(identity, status)
            except (ValidationError, ValueError, TypeError) as error:
                self._refusals.note("a sender", "its status is none", error)

    def _take_status(self, identity: bytes, status: Status) -> None:
        now = time.monotonic()
        opening = self._opened.session if self._opened is not None else None
        if (
            status.session == opening
            or status.session in self.deployer.sessions
            or self._state_machine.phase == "opening"
        ):
            whole = status.session == opening
            answer = json.dumps({"sent_s": status.sent_s, "head_s": time.time(), "open": whole}).encode()
            self._statuses.send_multipart([identity, answer], zmq.NOBLOCK)
            self.telemetry.take(status, current=whole)
        epoch = self._epoch_of.get(status.session)
        if epoch is None:
            return
        computed = {name: StageCount.from_list(values).samples for name, values in status.counts.items()}
        self._handle(events.Seen(epoch, status.device, status.busy, now, computed))
        if status.failure is not None:
            stage, batch, message = status.failure
            text = f"device {status.device} failed{f' running stage {stage}' if stage else ''}: {message}"
            self._handle(events.DeviceLost(epoch, status.device, text, now, stage or None, batch))
        for peer in status.cut:
            culprit = status.device if peer == HEAD else peer
            self._handle(events.DeviceLost(epoch, culprit, f"the link from {status.device} to {peer} {_GONE}", now))

    def _take_events(self) -> None:
        self._wakeup.clear()
        while self._events:
            event, extra = self._events.popleft()
            if isinstance(event, events.Opened):
                if event.epoch != self._state_machine.epoch:
                    continue
                self._connect(event.epoch, extra)
            elif isinstance(event, events.Prepared):
                if not self._state_machine.prepares(event.epoch):
                    self._begin(functools.partial(self.deployer.discard, extra))
                    continue
                self._prepared = {event.epoch: extra}
            elif isinstance(event, events.Joined):
                self._extend(with_device(self._manifest, extra))
            elif isinstance(event, events.PlanReady):
                self._extend(extended(self._manifest, extra))
                self.deployer.add_files(extra)
            self._handle(event)

    def _extend(self, manifest: Manifest) -> None:
        """There is a plan or a device more."""
        self._manifest = manifest
        self._device_of.update((stage.name, stage.device) for plan in manifest.plans for stage in plan.stages)
        self.telemetry.extend(manifest)
        self.deployer.extend(manifest)

    def _known(self) -> Mapping[str, str]:
        return {device.name: device.key for device in self._manifest.devices}

    def _welcome(self, name: str, key: str, facts: AgentFacts) -> None:
        self.join(name, key, {}, facts).result()

    def _vanished(self, keys: Collection[str]) -> None:
        for device in self._manifest.devices:
            if device.key in keys and device.name not in self._wanted:
                self._post(events.Missing(device.name, "it is not registered any more", time.monotonic()))

    def _end_for(self, plan: PlanEntry) -> HeadEnd:
        """Where the devices of a plan reach the head."""
        return replace(self._end, max_batches=self._settings.batches_of(plan) + self._behind)

    def _watch_links(self) -> None:
        for device in self._input_sender.broken():
            text = f"the link from the head to {device} {_GONE}"
            self._handle(events.DeviceLost(self._state_machine.epoch, device, text, time.monotonic()))

    def _probe(self) -> None:
        """Look for lost devices, again and again."""
        while not self._stopped.wait(deadlines.PROBE_S):
            for device in self._wanted:
                if not self._stopped.is_set() and self.deployer.back(device):
                    self._post(events.Returned(device, time.monotonic()))
