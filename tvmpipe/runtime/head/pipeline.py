"""The pipeline as its users hold it: samples in, several in flight, results in order."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from tvmpipe.equality import Expected, compare
from tvmpipe.errors import (
    DeviceError,
    DeviceLostError,
    InfeasibleError,
    InputError,
    QueueFullError,
    SampleError,
    SequenceError,
    StageError,
)
from tvmpipe.manifest import Manifest, PlanEntry
from tvmpipe.runtime.device.totals import StageCount
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.head.callbacks import CallbackRunner, ResultFuture, check_process
from tvmpipe.runtime.head.head import Callbacks, Head
from tvmpipe.runtime.head.instructions import Failure
from tvmpipe.runtime.head.opened import PlanDeployer
from tvmpipe.runtime.head.replanner import Replanner
from tvmpipe.runtime.head.sample import Fitted, Fitting, Result, Sample
from tvmpipe.runtime.head.sequences import (
    NO_STEPS,
    STEPS_ONLY,
    Carrier,
    Extent,
    Patience,
    Sequence,
    SequenceFacts,
    Slots,
)
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.head.streams import stream, stream_async
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport import deadlines
from tvmpipe.tensors import random_tensor


class Pipeline:
    """A bundle on its devices. Made by `connect`; a context manager; safe to use from several threads.

    After a device is lost, what was in flight is computed again: with failover by the devices that are left, without
    it once the device is back. Where neither happens in time every sample in flight fails with a DeviceLostError, and
    so does each later `submit`. It belongs to the process that made it: in a forked one every call raises DeviceError.
    """

    def __init__(
        self,
        manifest: Manifest,
        deployer: PlanDeployer,
        *,
        inflight: int,
        settings: Settings,
        key: ClusterKey | None = None,
        log: TextIO | None = None,
        replanner: Replanner | None = None,
        on_decision: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.inflight = inflight
        self._places = threading.Semaphore(inflight)
        self._leaving: dict[str, Future[None]] = {}
        self._slots = None if manifest.sequences is None else Slots(manifest.sequences.count)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._runner = CallbackRunner()
        self._fitting = Fitting(manifest)
        self._futures: dict[int, tuple[Future[Result], Fitted]] = {}
        self._numbers = itertools.count()
        self._phase = threading.Condition()
        self._state = "opening"
        self._failure: Failure | None = None
        self._closed = False

        callbacks = Callbacks(
            self._answer,
            self._fail,
            self._freed,
            self._phase_changed,
            self._runner.tick,
            on_decision,
            self._widened,
            self._device_left,
            self._crashed,
        )
        self._head = Head(manifest, settings, key, deployer, callbacks, log, replanner)
        self._head.start()
        self._wait_until_open()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def manifest(self) -> Manifest:
        """The bundle's, with the devices and plans that have come since."""
        return self._head.manifest

    @property
    def sent_bytes(self) -> int:
        """Bytes of libraries and weights sent to the devices so far."""
        return self._head.deployer.sent_bytes

    @property
    def agents(self) -> Mapping[str, AgentFacts]:
        """What each device that runs a tvmpipe agent said of itself; stock RPC servers are not in it."""
        return self._head.deployer.agents

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices that host a stage at the moment."""
        return self._head.devices

    @property
    def plan(self) -> PlanEntry:
        """The plan that runs, or ran last."""
        return self._head.plan

    @property
    def emulated(self) -> tuple[str, ...]:
        """Devices that behave as slower ones than they are."""
        return tuple(sorted(name for name, facts in self.agents.items() if facts.emulated is not None))

    @property
    def lost(self) -> tuple[str, ...]:
        """Devices that the pipeline runs without at the moment."""
        return self._head.lost

    @property
    def usable(self) -> bool:
        """Whether samples can be submitted: it is neither closed nor has it failed for good."""
        return self._problem() is None

    @property
    def sequences(self) -> tuple[SequenceFacts, ...]:
        """The sequences that are open."""
        return () if self._slots is None else self._slots.open

    def counts(self) -> dict[str, StageCount]:
        """What each stage has done so far, for everything that has been answered."""
        self._head.telemetry.settle(self.devices)
        return self._head.telemetry.counts()

    def trace(self) -> list[dict[str, Any]]:
        """What the devices did when, as Chrome trace events; empty unless connected with `trace`."""
        from tvmpipe.runtime.head.trace import chrome_events

        self._head.telemetry.settle(self.devices)
        nodes = {stage.name: stage.onnx_nodes for plan in self.manifest.plans for stage in plan.stages}
        return chrome_events(self._head.telemetry.spans(), nodes)

    def compute_seconds(self) -> dict[str, list[float]]:
        """How long each stage computed on each batch; empty unless connected with `trace`.

        On an emulated device with the wait that belongs to it.
        """
        self._head.telemetry.settle(self.devices)
        found: dict[str, list[float]] = {}
        for _, (lane, stage, _, began, ended) in self._head.telemetry.spans():
            if lane == "compute":
                found.setdefault(stage, []).append(ended - began)
        return found

    def submit(
        self, sample: Sample, *, block: bool = True, timeout_s: float | None = None, copy: bool = True
    ) -> Future[Result]:
        """Put a sample (input name -> array) into the pipeline; the future's result maps output names to arrays.

        The arrays are the caller's again at once. With `copy` False they are not copied and must stay as they are
        until the result is there: they are read while they are sent, and again when a device is lost.

        Waits for a place in the pipeline, at most `timeout_s`, or raises QueueFullError when `block` is False or
        the time is over. Raises SampleError when names, shapes or dtypes are none that the model takes, DeviceError
        when the pipeline has failed. The future raises StageError when a stage raised for this sample. Its callbacks
        run in a thread of their own, where they may wait for other results.
        """
        return self._submit(sample, block, timeout_s, copy=copy, plain=False)

    def run(self, sample: Sample) -> Result:
        """Run one sample and wait for its result."""
        return self._submit(sample, True, None, copy=False, plain=False).result()

    def sequence(self, *, timeout_s: float | None = None) -> Sequence:
        """A new sequence of steps, for a model with states; a context manager.

        Waits for a free place, at most `timeout_s`. Raises QueueFullError when there is none by then, SequenceError
        when the model has no states, DeviceError when the pipeline has failed.
        """
        check_process(self._pid)
        if self._slots is None:
            raise SequenceError(NO_STEPS)
        return self._slots.take(self._begin_sequence, timeout_s, self._check_open)

    def stream(self, samples: Iterable[Sample], *, copy: bool = True) -> Iterator[Result]:
        """Results of `samples`, in their order, with as many in flight as the pipeline takes.

        `samples` may be a live source: each result is given out when it is there, whether or not another sample has
        come, for which they are iterated over in a thread of its own. Raises the first error it meets, of `samples`
        too, after the results of what came before. `copy` as for `submit`.
        """
        return stream(lambda sample: self.submit(sample, copy=copy), samples, lambda: self.inflight)

    async def submit_async(self, sample: Sample) -> asyncio.Future[Result]:
        """As `submit`, without blocking the event loop while the pipeline is full."""
        try:
            future = self.submit(sample, block=False)
        except QueueFullError:
            future = await asyncio.to_thread(self.submit, sample)
        return asyncio.wrap_future(future)

    async def run_async(self, sample: Sample) -> Result:
        """As `run`."""
        return await (await self.submit_async(sample))

    async def stream_async(self, samples: Iterable[Sample] | AsyncIterable[Sample]) -> AsyncIterator[Result]:
        """As `stream`; `samples` may be asynchronous."""
        async for result in stream_async(self.submit_async, samples, lambda: self.inflight):
            yield result

    def warm_up(self, samples: int = 1) -> None:
        """Run random samples through every stage of every bucket, on each of its devices, then count from zero."""
        generator = np.random.default_rng(0)
        widest = max((stage.turn.of for plan in self.manifest.plans for stage in plan.stages), default=1)
        names = [spec.name for spec in self.manifest.sample_inputs]
        for bucket in self.manifest.buckets:
            specs = [spec for spec in bucket.inputs if spec.name in names]
            for _ in range(samples * widest):
                self._run_alone({spec.name: random_tensor(spec, generator) for spec in specs})
        self.reset_counts()

    def _run_alone(self, sample: Sample, *, plain: bool = False) -> Result:
        """Results of a sample; of a model with states, as the first step of a sequence of its own."""
        if self._slots is None:
            return self._submit(sample, True, None, copy=False, plain=plain).result()
        with self.sequence() as sequence:
            return sequence.step(sample, plain=plain)

    def reset_counts(self) -> None:
        """Count from zero."""
        self._head.telemetry.settle(self.devices)
        self._head.telemetry.reset()

    def compression_error(self, sample: Sample) -> float:
        """The largest difference that encoded links make to a sample's results, relative to their largest value.

        Where devices take turns, the sample goes all the ways that there are.
        """
        exact = self._run_alone(sample, plain=True)
        rounds = range(self.manifest.plan.round)
        return max(compare(self._run_alone(sample), Expected(exact)).relative for _ in rounds)

    def add_device(self, key: str, device: Mapping[str, Any] | None = None, *, name: str | None = None) -> None:
        """Have plans made with another device, that the tracker knows by `key`; it is called so unless `name` is given.

        `device` says what it is, as a [[device]] table of a cluster file: {"target": "pi5", "memory": "4GB"}. Without,
        it is as the bundle's cluster file has it, or as its agent describes itself. A plan is made in the background,
        and changed over to between two samples where that pays within the horizon.

        Raises InputError for a pipeline that is not elastic, ClusterError for a device that cannot be used, and
        DeviceError where it does not answer.
        """
        check_process(self._pid)
        self._check_open()
        self._head.join(name or key, key, device or {}).result()

    def watch_tracker(self) -> None:
        """From now on every device that registers with the tracker, and that nobody else has, is added.

        Raises InputError for a pipeline that is not elastic.
        """
        self._head.watch()

    def remove_device(self, name: str, *, timeout_s: float | None = None) -> None:
        """Do without a device and give it back: a plan without it takes over between two samples.

        Raises InputError for a pipeline that is not elastic or a name that is none of its devices, InfeasibleError when
        the devices that are left cannot hold the model, and TimeoutError when that takes longer than `timeout_s`.
        """
        check_process(self._pid)
        self._check_open()
        future = self._leaving.setdefault(name, Future())
        try:
            self._head.leave(name)
        except InputError:
            self._leaving.pop(name, None)
            raise
        future.result(timeout_s)

    def close(self) -> None:
        """Give the devices back. Samples still in flight fail. In a forked process this does nothing."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._slots is not None:
            self._slots.wake()
        self._head.close()
        self._end_leaving(DeviceError("the pipeline was closed"))
        self._runner.close()

    def _submit(
        self, sample: Sample, block: bool, timeout_s: float | None, *, copy: bool, plain: bool
    ) -> Future[Result]:
        check_process(self._pid)
        if self._slots is not None:
            raise SequenceError(STEPS_ONLY)
        fitted = self._fitting.fit(sample)
        return self._put(fitted, Patience(block, timeout_s), copy=copy, plain=plain)[1]

    def _put(
        self, fitted: Fitted, patience: Patience, *, copy: bool, plain: bool, extent: Extent | None = None
    ) -> tuple[int, Future[Result]]:
        if not self._places.acquire(patience.block, patience.timeout_s if patience.block else None):
            raise QueueFullError(f"{self.inflight} samples are in flight, which is the limit given to connect()")
        if copy:
            fitted = replace(fitted, inputs={name: array.copy() for name, array in fitted.inputs.items()})
        future = ResultFuture(self._runner)
        future.set_running_or_notify_cancel()
        with self._lock:
            problem = self._problem()
            if problem is None:
                number = next(self._numbers)
                self._futures[number] = future, fitted
                self._head.submit(number, fitted.inputs, bucket=fitted.bucket, plain=plain, extent=extent)
        if problem is not None:
            self._places.release()
            raise problem
        return number, future

    def _problem(self) -> DeviceError | None:
        """Why nothing can be submitted."""
        if self._closed:
            return DeviceError("the pipeline is closed")
        return None if self._failure is None else self._error(self._failure)

    def _check_open(self) -> None:
        problem = self._problem()
        if problem is not None:
            raise problem

    def _begin_sequence(self, number: int, slot: int) -> Sequence:
        self._head.begin(number, slot)
        carrier = Carrier(self.inflight, self._put_step, self._head.cut, self._head.end)
        return Sequence(self.manifest, self._fitting, carrier, number, slot)

    def _put_step(self, fitted: Fitted, extent: Extent, patience: Patience, plain: bool) -> tuple[int, Future[Result]]:
        check_process(self._pid)
        return self._put(fitted, patience, copy=True, plain=plain, extent=extent)

    def _widened(self, samples: int) -> None:
        """A plan needs more samples under way than those before."""
        more, self.inflight = samples - self.inflight, max(samples, self.inflight)
        if more > 0:
            self._places.release(more)

    def _end_leaving(self, error: DeviceError) -> None:
        """Nothing is given back any more before the pipeline is closed."""
        while self._leaving:
            self._leaving.popitem()[1].set_exception(error)

    def _device_left(self, device: str, refused: str | None) -> None:
        future = self._leaving.pop(device, None)
        if future is None:
            return
        if refused is None:
            future.set_result(None)
        else:
            future.set_exception(InfeasibleError(f"device {device} is needed: {refused}"))

    def _freed(self, sequence: int) -> None:
        assert self._slots is not None
        self._slots.freed(sequence)

    def _answer(self, number: int, outputs: Result) -> None:
        future, fitted = self._futures.pop(number)
        self._places.release()
        try:
            future.set_result(self._fitting.result(fitted, outputs))
        except SampleError as error:
            future.set_exception(error)

    def _fail(self, number: int, failure: Failure) -> None:
        future, _ = self._futures.pop(number)
        self._places.release()
        future.set_exception(self._error(failure))

    def _crashed(self, failure: Failure) -> None:
        with self._lock:
            self._failure = failure
            numbers = list(self._futures)
        for number in numbers:
            self._fail(number, failure.of(number))
        self._phase_changed("failed", failure)

    def _error(self, failure: Failure) -> DeviceError:
        if failure.device is None:
            return DeviceError(failure.message)
        where = "" if failure.sample is None else f"sample {failure.sample} was not answered: "
        if not failure.lost:
            return StageError(f"{where}stage {failure.stage} on device {failure.device} raised: {failure.message}")
        stage = "" if failure.stage is None else f", stage {failure.stage}"
        return DeviceLostError(
            f"{where}device {failure.device} was lost{stage}: {failure.message}",
            device=failure.device,
            stage=failure.stage,
            sample=failure.sample,
        )

    def _phase_changed(self, phase: str, failure: Failure | None) -> None:
        with self._phase:
            self._state = phase
            if phase == "failed":
                self._failure = failure
            self._phase.notify_all()
        if phase == "failed" and failure is not None:
            self._end_leaving(self._error(failure))
        if phase == "failed" and self._slots is not None:
            self._slots.wake()

    def _wait_until_open(self) -> None:
        """Return once the pipeline runs. Raises what kept it from it."""
        try:
            with self._phase:
                while not self._phase.wait_for(lambda: self._state in ("running", "failed"), deadlines.SIGNALS_S):
                    pass
        except BaseException:
            self.close()
            raise
        failure = self._failure
        if failure is not None:
            self.close()
            raise self._head.cause or self._error(failure)
