"""A plan in this process instead of on devices: its stages one after the other, no sockets, no threads.

For tests of what runs on top, and to try a bundle where no device is at hand. Only stages compiled for an
architecture and instruction set that this machine has can be loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future

from tvmpipe.bundle import Bundle
from tvmpipe.errors import SequenceError, StageError, reason_of
from tvmpipe.manifest import Files, Manifest, PlanEntry, StageEntry
from tvmpipe.runtime.device.runners import Runner, load_stage
from tvmpipe.runtime.device.states import HeldStates, StateStore
from tvmpipe.runtime.device.weights import read_weights
from tvmpipe.runtime.head.sample import Fitted, Fitting, Result, Sample
from tvmpipe.runtime.head.sequences import NO_STEPS, STEPS_ONLY, Carrier, Extent, Patience, Sequence, Slots
from tvmpipe.runtime.transport.wire import Fault, Step


class InProcess:
    """A loaded plan; a context manager that lets go of it at the end. Links carry tensors as they are.

    Samples are numbered as they come, and of devices that take turns the one computes whose turn it is.
    """

    def __init__(self, manifest: Manifest, files: Files, plan: PlanEntry) -> None:
        self.manifest = manifest
        self.plan = plan
        self._count = 0
        self._buckets = manifest.buckets
        self._fitting = Fitting(manifest)
        self._runners = {stage.name: _load(stage, files) for stage in plan.stages}
        sequences = manifest.sequences
        self._slots = None if sequences is None else Slots(sequences.count)
        states, count = ((), 0) if sequences is None else (sequences.states, sequences.count)
        self._states = HeldStates(plan.stages, StateStore(states, count))
        self._taken: dict[int, int] = {}  # slot of each open sequence
        self._fresh: set[int] = set()  # sequences that had no step so far

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._runners.clear()

    def run(self, sample: Sample) -> Result:
        """Results of one sample. Raises SampleError when it is not what the model takes."""
        if self._slots is not None:
            raise SequenceError(STEPS_ONLY)
        return self._run(self._fitting.fit(sample))

    def stream(self, samples: Iterable[Sample]) -> Iterator[Result]:
        """Results of `samples`, in their order."""
        return map(self.run, samples)

    def sequence(self, *, timeout_s: float | None = 0.0) -> Sequence:
        """A new sequence of steps, each of which runs when it is submitted.

        Raises QueueFullError when all are in use, SequenceError when the model has no states.
        """
        if self._slots is None:
            raise SequenceError(NO_STEPS)
        return self._slots.take(self._begin, timeout_s)

    def _run(self, fitted: Fitted, step: Step | None = None) -> Result:
        bucket = self._buckets[fitted.bucket]
        values = {value: fitted.inputs[name] for name, value in bucket.model_inputs.items()}
        number, self._count = self._count, self._count + 1
        for stage in self.plan.stages_of(fitted.bucket):
            if not stage.turn.takes(number):
                continue
            if step is not None and (fault := self._states.bring(stage.name, step, values)) is not None:
                raise StageError(f"an earlier step of the sequence failed: {fault.message}")
            try:
                outputs = self._runners[stage.name].run([values[tensor.value] for tensor in stage.inputs])
            except Exception as error:
                if step is not None:
                    self._states.spoil(step.slot, Fault(stage.device, stage.name, reason_of(error)))
                raise
            values.update((t.value, array) for t, array in zip(stage.outputs, outputs, strict=True))
            if step is not None:
                self._states.keep(stage.name, step, values, None)
        return self._fitting.result(fitted, {name: values[value] for name, value in bucket.model_outputs.items()})

    def _begin(self, number: int, slot: int) -> Sequence:
        self._taken[number] = slot
        self._fresh.add(number)
        carrier = Carrier(1, self._put, lambda _number, _samples: None, self._end)
        return Sequence(self.manifest, self._fitting, carrier, number, slot)

    def _put(self, fitted: Fitted, extent: Extent, _: Patience, __: bool) -> tuple[int, Future[Result]]:
        sequence = extent.sequence
        first = sequence in self._fresh
        self._fresh.discard(sequence)
        number, future = self._count, Future[Result]()
        try:
            future.set_result(self._run(fitted, Step(self._taken[sequence], number, first)))
        except Exception as error:  # noqa: BLE001  # raised where the result is asked for
            future.set_exception(error)
        return number, future

    def _end(self, sequence: int) -> None:
        assert self._slots is not None
        del self._taken[sequence]
        self._fresh.discard(sequence)
        self._slots.freed(sequence)


def _load(stage: StageEntry, files: Files) -> Runner:
    weights = read_weights([files.path_of(file) for file in stage.weight_files], stage.weight_names)
    return load_stage(stage, files.path_of(stage.library), dict(zip(stage.weight_names, weights, strict=True)))


def run_in_process(bundle: Bundle, plan: PlanEntry | None = None) -> InProcess:
    """Load a plan of the bundle, by default the one to start with."""
    return InProcess(bundle.manifest, bundle, bundle.manifest.plan if plan is None else plan)
