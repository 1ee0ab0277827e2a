"""Measure primitives on the devices of a cluster, several devices at once, and keep what was measured.

Primitives go in groups: one is compiled on this host, then timed on the devices, so that compiling never disturbs a
device that is this host. Libraries are kept beside the measurements. What the store says is settled
(`profiling.resampling`) is not measured again, so a run that was ended goes on where it was; at most the primitives in
hand are lost.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from tvmpipe.errors import DeviceError, TvmpipeError, reason_of
from tvmpipe.profiling.measure import MIN_REPEAT_S, RemoteTimer, remote_timer
from tvmpipe.profiling.resampling import unsettled
from tvmpipe.profiling.timing import Patience, Timing, Watch
from tvmpipe.profiling.watch import Compile, Loops, loops_of, measure_facts, watch_over
from tvmpipe.profiling.workload import Workload
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.targets.cost.measured import measured
from tvmpipe.targets.description.cluster import Cluster, Device
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import Measurement, ProfileStore, store_key, tvm_version
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION

logger = logging.getLogger(__name__)

_GROUP = 24  # primitives of a target that are compiled before they are timed
_FEW = 12  # primitives that are compiled by the time that other processes would have started

_Connect = Callable[[Device], AbstractContextManager[RemoteTimer]]
Notice = Callable[[str, int, int], None]
"""Called with what is being done, how many measurements are done, and how many there will be."""


@dataclass
class Outcome:
    """What a profiling run did: measurements made, found in the store, of a busy device; what failed, in sentences."""

    measured: int = 0
    known: int = 0
    busy: int = 0
    left: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class _Kind:
    """Devices of one target with equally many threads share measurements, and the work of making them."""

    target: TargetDescription
    threads: int
    devices: tuple[Device, ...]

    @property
    def key(self) -> str:
        return store_key(self.target, self.threads)


def profile(
    workloads: Sequence[Workload],
    cluster: Cluster,
    tracker: str,
    store: ProfileStore,
    compile_loop: Compile,
    *,
    cluster_key: ClusterKey | None = None,
    budget_s: float | None = None,
    again: bool = False,
    passes: int = 1,
    patience: Patience | None = None,
    notice: Notice | None = None,
) -> Outcome:
    """Measure each workload on each target of `cluster`, in order, until all are or `budget_s` has passed.

    `compile_loop` makes the libraries of the loops that watch the devices. With several `passes`, what is not settled
    by then is measured again in each of them (`profiling.resampling`). With `again`, what was measured before settles
    nothing. A device that fails ends its own work, not that of others.
    Raises DeviceUnavailableError when no device could be reached, InputError when the store cannot be written.
    """
    started = time.monotonic()
    run = _Run(
        cluster,
        partial(remote_timer, tracker, cluster_key=cluster_key),
        store,
        compile_loop,
        patience or Patience(),
        notice or (lambda *_: None),
    )
    # The store is append-only, so what was there before is so many first rows.
    skipped = {kind.key: len(run.rows(kind)) if again else 0 for kind in run.kinds}
    deadline = None if budget_s is None else started + budget_s
    for number in range(passes):
        pending = {kind.key: run.pending(kind, workloads, passes, skipped[kind.key]) for kind in run.kinds}
        run.total = run.done + sum(map(len, pending.values()))
        if not number:
            run.outcome.known = len(workloads) * len(run.kinds) - run.total
        run.work_off({kind.key: pending[kind.key] for kind in run.kinds if run.alive(kind)}, deadline)
        if deadline is not None and time.monotonic() > deadline:
            break
    run.outcome.left = run.total - run.done
    run.outcome.seconds = time.monotonic() - started
    if run.lost and not run.done:
        raise next(iter(run.lost.values()))
    return run.outcome


class _Run:
    """A run of the profiler: what is shared between the threads that speak to the devices."""

    def __init__(
        self,
        cluster: Cluster,
        connect: _Connect,
        store: ProfileStore,
        compile_loop: Compile,
        patience: Patience,
        notice: Notice,
    ) -> None:
        self.connect, self.store, self.compile_loop = connect, store, compile_loop
        self.patience, self.notice = patience, notice
        kinds: dict[str, list[Device]] = {}
        for device in cluster.devices:
            kinds.setdefault(store_key(device.target, device.threads), []).append(device)
        self.kinds = [_Kind(found[0].target, found[0].threads, tuple(found)) for found in kinds.values()]
        self.outcome = Outcome()
        self.lost: dict[str, TvmpipeError] = {}
        self.failed: set[tuple[str, str]] = set()
        self.total = self.done = 0
        self._lock = threading.Lock()
        self._loops: dict[str, Loops] = {}

    def alive(self, kind: _Kind) -> bool:
        """Whether a device of the kind is left."""
        return any(device.name not in self.lost for device in kind.devices)

    def rows(self, kind: _Kind) -> list[Measurement]:
        """What the store has that holds for the kind."""
        return measured(self.store, kind.target, kind.threads)

    def pending(self, kind: _Kind, workloads: Sequence[Workload], passes: int, skipped: int) -> deque[Workload]:
        """What is not settled by the measurements after the first `skipped`."""
        by_key = {workload.key: workload for workload in workloads}
        keys = [key for key in by_key if (kind.key, key) not in self.failed]
        return deque(by_key[key] for key in unsettled(keys, self.rows(kind)[skipped:], passes))

    def work_off(self, pending: dict[str, deque[Workload]], deadline: float | None) -> None:
        """Measure by groups until all are done, no device is left or time is over."""
        while any(pending.values()) and (deadline is None or time.monotonic() < deadline):
            group = {key: [queue.popleft() for _ in range(min(_GROUP, len(queue)))] for key, queue in pending.items()}
            self.compile(group)
            self.measure(group, deadline)
            for kind in self.kinds:
                if not self.alive(kind):
                    pending.pop(kind.key, None)

    def compile(self, group: dict[str, list[Workload]]) -> None:
        """Make the libraries that are not there yet; of many, as many at a time as this host has processors."""
        from tvm.support.popen_pool import PopenPoolExecutor, StatusKind

        jobs = []
        for kind in self.kinds:
            for workload in group.get(kind.key, ()):
                path = self.library(kind, workload)
                if not path.exists():
                    jobs.append((path, workload, kind.target, kind.threads))
            if kind.key not in self._loops:
                self._loops[kind.key] = loops_of(kind.target, kind.threads, self.compile_loop)
        if not jobs:
            return
        self.notice(f"compiling {len(jobs)}", self.done, self.total)
        if len(jobs) <= _FEW:
            for path, workload, target, threads in jobs:
                try:
                    library = workload.compile(target, threads)
                except Exception as error:  # noqa: BLE001  # TVM reports what it cannot compile with many types
                    _say_not_compiled(target, error)
                else:
                    _write(path, library)
            return
        pool = PopenPoolExecutor(max_workers=min(len(jobs), os.cpu_count() or 1), timeout=600)
        for job, result in zip(jobs, pool.map_with_error_catching(_compile, [job[1:] for job in jobs]), strict=True):
            if result.status == StatusKind.COMPLETE:
                _write(job[0], bytes(result.value))
            else:
                _say_not_compiled(job[2], result.value)

    def library(self, kind: _Kind, workload: Workload) -> Path:
        """Where the compiled primitive is kept."""
        return self.store.folder / "libraries" / kind.key / f"{workload.key}.so"

    def measure(self, group: dict[str, list[Workload]], deadline: float | None) -> None:
        """Time a group on all devices at once."""
        threads = []
        for kind in self.kinds:
            queue = deque(group.get(kind.key, ()))
            for device in kind.devices:
                if device.name not in self.lost and queue:
                    work = (kind, device, queue, deadline)
                    threads.append(threading.Thread(target=self._serve, args=work, name=f"profile {device.name}"))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _serve(self, kind: _Kind, device: Device, queue: deque[Workload], deadline: float | None) -> None:
        try:
            with self.connect(device) as timer, self._watch(kind, device, timer) as watch:
                while queue and (deadline is None or time.monotonic() < deadline):
                    try:
                        workload = queue.popleft()
                    except IndexError:  # another device of the kind took the last one
                        return
                    try:
                        self._one(kind, device, workload, timer, watch)
                    except Exception as error:  # noqa: BLE001  # no memory for its tensors, say; or the device is gone
                        watch.check()
                        reason = f"cannot be timed on {device.name}: {reason_of(error)}"
                        self._fail(kind, workload, f"{workload.title} {reason}")
        except TvmpipeError as error:
            self._lose(device, error)
        except Exception as error:  # noqa: BLE001  # TVM reports a lost device with many exception types
            self._lose(device, DeviceError(f"device {device.name} failed: {reason_of(error)}"))

    def _fail(self, kind: _Kind, workload: Workload, sentence: str) -> None:
        """Count a primitive as done that cannot be measured."""
        with self._lock:
            self.failed.add((kind.key, workload.key))
            self.done += 1
            self.outcome.failures.append(sentence)

    def _lose(self, device: Device, error: TvmpipeError) -> None:
        with self._lock:
            self.lost[device.name] = error
            self.outcome.failures.append(str(error))

    @contextmanager
    def _watch(self, kind: _Kind, device: Device, timer: RemoteTimer) -> Iterator[Watch]:
        """A watch over the device; on its first use its ceilings are measured as well."""
        loops = self._loops[kind.key]
        with self._lock:
            known = self.store.device(kind.target, kind.threads)
            watch_rows = self.rows(kind)
        watch = watch_over(timer, loops, watch_rows, self.patience)
        if known is None:
            facts = measure_facts(timer, loops, watch, device.key, _now())
            with self._lock:
                self.store.add(kind.target, kind.threads, facts)
        yield watch

    def _one(self, kind: _Kind, device: Device, workload: Workload, timer: RemoteTimer, watch: Watch) -> None:
        path = self.library(kind, workload)
        if not path.exists():
            self._fail(kind, workload, f"{workload.title} cannot be compiled for {kind.key}")
            return
        module = timer.load(path.read_bytes())
        tensors = timer.tensors(list(workload.tensors))
        timing = watch.time(
            lambda count: timer.samples(module, tensors, count, min_repeat_s=MIN_REPEAT_S),
            lambda count: timer.samples(module, tensors, count, cold=True),
        )
        row = _row(workload, timing)
        with self._lock:
            self.store.add(kind.target, kind.threads, row)
            self.done += 1
            self.outcome.measured += 1
            self.outcome.busy += row.busy
            self.notice(f"{device.name}: {workload.title}", self.done, self.total)


def _row(workload: Workload, timing: Timing) -> Measurement:
    return Measurement(
        work=workload.work,
        seconds=timing.seconds,
        low_s=timing.low_s,
        high_s=timing.high_s,
        runs=timing.runs,
        cold_s=timing.cold_s,
        busy=timing.busy,
        schedule=SCHEDULE_VERSION,
        tvm=tvm_version(),
        when=_now(),
        origin=workload.origin,
        reference_s=timing.reference_s,
    )


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _compile(job: tuple[Workload, TargetDescription, int]) -> bytes:
    """A workload's library; runs in a worker process."""
    workload, target, threads = job
    return workload.compile(target, threads)


def _say_not_compiled(target: TargetDescription, error: object) -> None:
    logger.info("a primitive cannot be compiled for %s: %s", target.name, reason_of(error))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)
