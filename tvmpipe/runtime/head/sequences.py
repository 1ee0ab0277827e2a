"""Sequences as their users hold them: steps that share what a model keeps from one to the next."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType

from tvmpipe.errors import QueueFullError, SequenceError
from tvmpipe.manifest import Manifest
from tvmpipe.runtime.head.replay_blocks import step_dimension
from tvmpipe.runtime.head.sample import Fitted, Fitting, Result, Sample
from tvmpipe.runtime.head.streams import stream

STEPS_ONLY = "this model has states: its samples are the steps of a sequence(), which has step(), submit() and stream()"
NO_STEPS = (
    "this model keeps nothing from one sample to the next: it has run(), submit() and stream(), and no sequence()"
)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a place in the pipeline: not at all, or `timeout_s` (None: for ever)."""

    block: bool = True
    timeout_s: float | None = None


@dataclass(frozen=True)
class Carrier:
    """What carries out the steps of sequences, which it knows by their numbers, `inflight` at once.

    `put` takes the next step of a sequence and where that stands, as the options of `Sequence.submit` say and whether
    links leave its tensors as they are; it returns the step's number as a sample, and what will have its results. `cut`
    says that what such samples have left counts for none that comes from now on, `end` that no more steps come.
    """

    inflight: int
    put: Callable[[Fitted, Extent, Patience, bool], tuple[int, Future[Result]]]
    cut: Callable[[int, tuple[int, ...]], None]
    end: Callable[[int], None]


@dataclass(frozen=True)
class Extent:
    """Where a step stands: the number of its sequence, elements before it, and those that it adds."""

    sequence: int
    start: int
    elements: int


@dataclass(frozen=True)
class SequenceFacts:
    """An open sequence: its slot on the devices, elements of its states, steps submitted so far, seconds it is open."""

    slot: int
    length: int
    steps: int
    age_s: float


class Growth:
    """How long the states of a model become that grows them: the elements that each step adds."""

    def __init__(self, manifest: Manifest) -> None:
        assert manifest.sequences is not None
        states = manifest.sequences.states
        self.replaced = [state.name for state in states if state.axis is None]
        growing = [(state.adds, state.spec.shape[state.axis]) for state in states if state.axis is not None]
        self._adds, capacity = growing[0] if growing else ((), 0)
        self._context = manifest.sequences.context or capacity
        self._dimension = step_dimension(manifest)

    @property
    def grows(self) -> bool:
        """Whether any state grows."""
        return bool(self._adds)

    def after(self, length: int, fitted: Fitted) -> int:
        """How many elements there are after a step. Raises SequenceError where that would be too many.

        What a sample is padded with is written, too, but does not count: the next step writes there.
        """
        if not self._adds:
            return length
        adds = self._adds[fitted.bucket]
        if length + adds > self._context:
            raise SequenceError(
                f"the sequence has {length} elements and a step adds {adds} to them: the model keeps at most "
                f"{self._context}; truncate() it or begin another one"
            )
        return length + self.elements(fitted)

    def elements(self, fitted: Fitted) -> int:
        """What a step adds that counts; 0 where no state grows."""
        adds = self._adds[fitted.bucket] if self._adds else 0
        return adds if self._dimension is None else fitted.extents.get(self._dimension, adds)


class Sequence:
    """Steps in their order, of which several may be under way; a context manager, safe to use from several threads.

    After a device is lost all of its steps so far are computed again, for which their inputs are kept until it is
    closed. When a step fails, so do all that are under way or come later.
    """

    def __init__(self, manifest: Manifest, fitting: Fitting, carrier: Carrier, number: int, slot: int) -> None:
        self.slot = slot
        self._fitting = fitting
        self._growth = Growth(manifest)
        self._carrier = carrier
        self._number = number
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._length = 0
        self._steps = 0
        self._starts: list[tuple[int, int]] = []  # of each step that counts: the length before it, and its sample
        self._closed = False

    def __enter__(self) -> Sequence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def length(self) -> int:
        """How many elements the states that grow have after all steps submitted so far; 0 where none grows."""
        return self._length

    @property
    def steps(self) -> int:
        """How many steps were submitted so far."""
        return self._steps

    @property
    def closed(self) -> bool:
        """Whether no more steps may be submitted."""
        return self._closed

    @property
    def facts(self) -> SequenceFacts:
        """How far it is."""
        return SequenceFacts(self.slot, self._length, self._steps, time.monotonic() - self._began)

    def submit(self, sample: Sample, *, block: bool = True, timeout_s: float | None = None) -> Future[Result]:
        """Put the next step (input name -> array) into the pipeline; the future's result maps outputs to arrays.

        The arrays are the caller's again at once. Waits for a place in the pipeline, at most `timeout_s`, or raises
        QueueFullError when `block` is False or the time is over. Raises SampleError when names, shapes or dtypes are
        none that the model takes, SequenceError when the sequence is closed or has no room for the step, DeviceError
        when the pipeline has failed. The future raises StageError when a stage raised for this step or one before it.
        """
        return self._submit(sample, Patience(block, timeout_s), plain=False)

    def step(self, sample: Sample, *, plain: bool = False) -> Result:
        """Run the next step and wait for its results. With `plain`, links leave its tensors as they are."""
        return self._submit(sample, Patience(), plain=plain).result()

    def stream(self, samples: Iterable[Sample]) -> Iterator[Result]:
        """Results of `samples`, which are the next steps, in their order, several of them under way."""
        return stream(self.submit, samples, self._carrier.inflight)

    def truncate(self, length: int) -> None:
        """Go on after the first `length` elements: the next step writes from there on.

        Steps under way are not affected. Raises SequenceError where a state does not grow, or has fewer elements.
        """
        with self._lock:
            if self._growth.replaced or not self._growth.grows:
                replaced = "".join(f" ({name} is replaced by each step)" for name in self._growth.replaced[:1])
                raise SequenceError(f"only a sequence whose states all grow can be truncated{replaced}")
            if not 0 <= length <= self._length:
                raise SequenceError(f"the sequence has {self._length} elements, of which {length} cannot be kept")
            cut = tuple(sample for start, sample in self._starts if start >= length)
            self._starts = [(start, sample) for start, sample in self._starts if start < length]
            self._length = length
            if cut:
                self._carrier.cut(self._number, cut)

    def close(self) -> None:
        """Give its place on the devices to others, once the steps under way are done, which are still answered."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._carrier.end(self._number)

    def _submit(self, sample: Sample, patience: Patience, *, plain: bool) -> Future[Result]:
        with self._lock:
            if self._closed:
                raise SequenceError("the sequence is closed")
            fitted = self._fitting.fit(sample, self._length)
            length = self._growth.after(self._length, fitted)
            extent = Extent(self._number, self._length, self._growth.elements(fitted))
            number, future = self._carrier.put(fitted, extent, patience, plain)
            if self._growth.grows:
                self._starts.append((self._length, number))
            self._length = length
            self._steps += 1
        return future


def all_in_use(count: int) -> QueueFullError:
    """What to raise where no more sequences can be opened."""
    return QueueFullError(
        f"all {count} sequences that the bundle was compiled for are in use; close one, or compile it for more"
    )


class Slots:
    """The places for sequences on the devices, and who has them. Safe to use from several threads."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._changed = threading.Condition()
        self._free = list(range(count))
        self._numbers = itertools.count()
        self._taken: dict[int, Sequence] = {}  # by number; a closed one until nothing of it is under way
        self._waiting: list[int] = []  # tickets, who came first is first

    @property
    def open(self) -> tuple[SequenceFacts, ...]:
        """All open sequences, the oldest first."""
        with self._changed:
            return tuple(one.facts for one in self._taken.values() if not one.closed)

    def take(
        self,
        make: Callable[[int, int], Sequence],
        timeout_s: float | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Sequence:
        """The sequence that `make` makes with a number and a slot.

        Waits for a free slot, at most `timeout_s`; raises QueueFullError when there is none by then, and what `check`
        raises, which is called again after each `wake`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            number = next(self._numbers)
            self._waiting.append(number)
            try:
                check()
                while not self._free or self._waiting[0] != number:
                    if not self._changed.wait(None if deadline is None else deadline - time.monotonic()):
                        raise all_in_use(self._count)
                    check()
                slot = heapq.heappop(self._free)
            finally:
                self._waiting.remove(number)
                self._changed.notify_all()
            sequence = self._taken[number] = make(number, slot)
            return sequence

    def freed(self, number: int) -> None:
        """The slot of a sequence is free."""
        with self._changed:
            heapq.heappush(self._free, self._taken.pop(number).slot)
            self._changed.notify_all()

    def wake(self) -> None:
        """Have those that wait check again."""
        with self._changed:
            self._changed.notify_all()
