"""The pipeline executor: samples through the graph of stages, several in flight, results in order."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.errors import DeviceError, DeviceLostError, QueueFullError, SampleError
from tvmpipe.manifest import DeviceEntry, Manifest, StageEntry
from tvmpipe.runtime.router import Finished, Router, Task
from tvmpipe.runtime.session import DeviceSession, Session, StageTimes
from tvmpipe.runtime.tracker import Tracker
from tvmpipe.runtime.watchdog import Watchdog

if TYPE_CHECKING:
    from tvmpipe.bundle import Bundle

logger = logging.getLogger(__name__)

Sample = Mapping[str, NDArray[Any]]
Result = dict[str, NDArray[Any]]


@dataclass
class StageCount:
    """What one stage has done so far: samples, and seconds per part summed over them."""

    samples: int = 0
    receive_s: float = 0.0
    compute_s: float = 0.0
    send_s: float = 0.0

    def add(self, times: StageTimes) -> None:
        """Count one more sample."""
        self.samples += 1
        self.receive_s += times.receive_s
        self.compute_s += times.compute_s
        self.send_s += times.send_s

    def reset(self) -> None:
        """Count from zero again, after a warm-up say."""
        self.samples, self.receive_s, self.compute_s, self.send_s = 0, 0.0, 0.0, 0.0


class _DeviceWorker:
    """The thread that owns a session and runs its stages, oldest sample first."""

    def __init__(self, session: Session, pipeline: Pipeline) -> None:
        self.session = session
        self._pipeline = pipeline
        self._condition = threading.Condition()
        self._tasks: list[tuple[int, int, Task]] = []
        self._order = itertools.count()
        self._stopped = False
        self.thread = threading.Thread(target=self._work, name=f"tvmpipe-{session.device.name}", daemon=True)

    def put(self, task: Task) -> None:
        with self._condition:
            heapq.heappush(self._tasks, (task.sample, next(self._order), task))
            self._condition.notify()

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify()

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._tasks and not self._stopped:
                    self._condition.wait()
                if self._stopped:
                    return
                _, _, task = heapq.heappop(self._tasks)
            try:
                outputs, times = self.session.run(task.stage.name, task.sample, task.inputs)
                self._pipeline._stage_done(task, outputs, times)
            except Exception as error:  # noqa: BLE001  # whatever it is, waiting callers must hear of it
                self._pipeline._fail(error)
                return


class Pipeline:
    """A bundle on its devices. Made by `Bundle.connect`; a context manager; safe to use from several threads.

    After a device is lost every sample in flight fails with its error, and so does each later `submit`.
    """

    def __init__(
        self, manifest: Manifest, sessions: Mapping[str, Session], inflight: int, watchdog: Watchdog | None = None
    ) -> None:
        self.manifest = manifest
        self.inflight = inflight
        self.sessions = dict(sessions)
        self.counts = {stage.name: StageCount() for stage in manifest.stages}
        self.sent_bytes = 0
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(inflight)
        self._router = Router(manifest)
        self._futures: dict[int, Future[Result]] = {}
        self._numbers = itertools.count()
        self._failure: Exception | None = None
        self._closed = False
        self._workers = {name: _DeviceWorker(session, self) for name, session in sessions.items()}
        for worker in self._workers.values():
            worker.thread.start()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, sample: Sample, *, block: bool = True) -> Future[Result]:
        """Put a sample (input name -> array) into the pipeline; the future's result maps output names to arrays.

        Waits for a place in the pipeline, or raises QueueFullError when `block` is False. Raises SampleError
        when names, shapes or dtypes are not those of the model, DeviceError when the pipeline has failed.
        """
        inputs = check_sample(self.manifest, sample)
        if not self._slots.acquire(blocking=block):
            raise QueueFullError(f"{self.inflight} samples are in flight, which is the limit given to connect()")
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            problem = DeviceError("the pipeline is closed") if self._closed else self._failure
            if problem is None:
                number = next(self._numbers)
                self._futures[number] = future
                tasks = self._router.start(number, inputs)
        if problem is not None:
            self._slots.release()
            raise problem
        self._dispatch(tasks)
        return future

    def run(self, sample: Sample) -> Result:
        """Run one sample and wait for its result."""
        return self.submit(sample).result()

    def stream(self, samples: Iterable[Sample]) -> Iterator[Result]:
        """Results of `samples`, in their order, with as many in flight as the pipeline takes.

        Raises the first error it meets; no result after it is given out.
        """
        pending: deque[Future[Result]] = deque()
        for sample in samples:
            if len(pending) >= self.inflight:
                yield pending.popleft().result()
            pending.append(self.submit(sample))
            while pending and pending[0].done():
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def close(self) -> None:
        """Give the devices back. Samples still in flight fail."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._fail(DeviceError("the pipeline was closed before the sample was done"))
        for worker in self._workers.values():
            worker.stop()
            worker.session.close()
        for worker in self._workers.values():
            worker.thread.join(timeout=5.0)
        if self._watchdog is not None:
            self._watchdog.stop()

    def _dispatch(self, tasks: list[Task]) -> None:
        for task in tasks:
            self._workers[task.stage.device].put(task)

    def _stage_done(self, task: Task, outputs: list[NDArray[Any]], times: StageTimes) -> None:
        with self._lock:
            self.counts[task.stage.name].add(times)
            outcome = self._router.complete(task, outputs)
            future = self._futures.pop(outcome.sample) if isinstance(outcome, Finished) else None
        if isinstance(outcome, Finished):
            self._slots.release()
            if future is not None:
                future.set_result(outcome.outputs)
        else:
            self._dispatch(outcome)

    def _fail(self, error: Exception) -> None:
        """Every sample in flight gets the error of the first device that failed."""
        with self._lock:
            if self._failure is None:
                self._failure = error
            futures = list(self._futures.values())
            self._futures.clear()
            for number in self._router.in_flight:
                self._router.drop(number)
        for future in futures:
            self._slots.release()
            future.set_exception(self._failure)


def check_sample(manifest: Manifest, sample: Sample) -> dict[str, NDArray[Any]]:
    """The sample's arrays, dense, in the model's order. Raises SampleError with one sentence."""
    names = [spec.name for spec in manifest.model.inputs]
    for name in sample:
        if name not in names:
            raise SampleError(f"input {name!r} is not one of the model's; allowed: {', '.join(names)}")
    inputs = {}
    for spec in manifest.model.inputs:
        if spec.name not in sample:
            raise SampleError(f"input {spec.name!r} is missing; the model takes {', '.join(names)}")
        array = np.asarray(sample[spec.name])
        if array.dtype.name != spec.dtype:
            raise SampleError(f"input {spec.name!r} has dtype {array.dtype.name}; the model takes {spec.dtype}")
        if array.shape != spec.shape:
            raise SampleError(f"input {spec.name!r} has shape {list(array.shape)}; the model takes {list(spec.shape)}")
        inputs[spec.name] = np.ascontiguousarray(array).reshape(spec.shape)
    return inputs


def connect(
    bundle: Bundle, tracker: str, *, inflight: int | None, timeout_s: float, connect_timeout_s: float
) -> Pipeline:
    """Request every device of a bundle, load its stages, start the executor; see `Bundle.connect`."""
    manifest = bundle.manifest
    watchdog = Watchdog()
    sessions: dict[str, DeviceSession] = {}
    try:
        deadline = time.monotonic() + connect_timeout_s
        with Tracker(tracker, timeout_s=min(5.0, connect_timeout_s)) as client:
            for device in manifest.devices:
                sessions[device.name] = _open_session(client, device, watchdog, timeout_s, deadline)
        sent = _load_all(bundle, sessions)
    except BaseException:
        for session in sessions.values():
            session.close()
        watchdog.stop()
        raise
    pipeline = Pipeline(manifest, sessions, inflight or 2 * len(manifest.stages), watchdog)
    pipeline.sent_bytes = sent
    return pipeline


def _open_session(
    client: Tracker, device: DeviceEntry, watchdog: Watchdog, timeout_s: float, deadline: float
) -> DeviceSession:
    """A session with a device that the tracker grants, before `deadline` (monotonic).

    A device that registered anew since the tracker last heard of it refuses its old key; it is asked for again.
    """
    while True:
        address = client.request(device.key, max(0.1, deadline - time.monotonic()))
        try:
            return DeviceSession(device, address, watchdog, timeout_s, max(1.0, deadline - time.monotonic()))
        except DeviceLostError:
            if time.monotonic() + 1.0 > deadline:
                raise
            time.sleep(0.5)


def _load_all(bundle: Bundle, sessions: Mapping[str, Session]) -> int:
    """Load all devices at the same time; raises the first failure."""
    by_device: dict[str, list[StageEntry]] = {name: [] for name in sessions}
    for stage in bundle.manifest.stages:
        by_device[stage.device].append(stage)
    futures: dict[str, Future[int]] = {}
    for name, session in sessions.items():
        futures[name] = _in_thread(session.load, bundle, by_device[name])
    return sum(future.result() for future in futures.values())


def _in_thread(function: Any, *arguments: Any) -> Future[int]:
    """Daemon threads, unlike an executor's: a device that hangs must not keep the process from ending."""
    future: Future[int] = Future()

    def work() -> None:
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001  # raised again where the future is read
            future.set_exception(error)

    threading.Thread(target=work, name="tvmpipe-load", daemon=True).start()
    return future
