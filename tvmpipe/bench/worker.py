"""The processes that `tvmpipe.bench.compare` times: one runs a bundle's stages, the other the model in ONNX Runtime.

`main` gets one end of a pipe, over which it is told what to load and what to do. Two processes, because thread
pools, allocators and CPU affinity of the two must not meet in one.
"""

from __future__ import annotations

import math
import statistics
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tvmpipe.errors import reason_of
from tvmpipe.manifest import StageEntry
from tvmpipe.process import die_with_parent

if TYPE_CHECKING:
    from tvmpipe.targets.description.target import TargetDescription

SPIN_S = 5e-3
"""Seconds that an idle thread of either pool waits actively before it sleeps."""

SPIN_COUNT = 20_000
"""The same for TVM, which counts iterations: 20,000 took 4.5 ms on the host where this was written."""

_WARM_BELOW_S = 0.1  # a run that takes longer is not changed by what the other process left in caches
_QUIET_LIMIT_S = 3.0
_REPEATS = 5
_MIN_REPEAT_MS = 20


@dataclass(frozen=True)
class StageJob:
    """A stage to load: its entry in the manifest, its file, and the safetensors files that its weights lie in."""

    entry: StageEntry
    library: Path
    weights: tuple[Path, ...]


@dataclass(frozen=True)
class BundleJob:
    """Stages in an order in which they can run; `inputs` by the ids of their values, `outputs` the ids of results."""

    stages: tuple[StageJob, ...]
    threads: int
    inputs: Mapping[int, NDArray[Any]]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class OnnxJob:
    """A model to load into ONNX Runtime; `inputs` by name."""

    model: Path
    threads: int
    inputs: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class FunctionTime:
    """A compiled function, or a whole stage that ONNX Runtime runs, which `name` is that of then.

    Shapes of its tensors, results last; calls per inference; seconds of one call.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    calls: int
    call_s: float


class _Runner(Protocol):
    def infer(self) -> Any: ...


class _Stage(Protocol):
    """A loaded stage. Tensors between stages of one code generator are passed as they are."""

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        """Its outputs; `values` by their ids."""
        ...

    def profile(self, values: Mapping[int, Any], times: _Times) -> list[Any]:
        """Its outputs, with `times` of what runs in it, with warm caches."""
        ...


class _Times:
    """Seconds and calls of functions, by name; a function that several stages have is timed once."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self._timed: dict[str, tuple[tuple[tuple[int, ...], ...], float]] = {}

    def add(self, name: str, tensors: Sequence[Any], seconds: float) -> None:
        shapes = (tuple(int(extent) for extent in tensor.shape) for tensor in tensors)
        self._timed[name] = tuple(shapes), seconds

    def found(self) -> list[FunctionTime]:
        return [FunctionTime(name, shapes, self.calls[name], call_s) for name, (shapes, call_s) in self._timed.items()]


class _TvmStage:
    """A stage on TVM's Relax virtual machine, here and without RPC."""

    def __init__(self, job: StageJob) -> None:
        import tvm
        from tvm import relax

        from tvmpipe.runtime.device.weights import read_weights

        self._library = tvm.runtime.load_module(str(job.library))
        self._machine = relax.VirtualMachine(self._library, tvm.cpu())
        self._main = self._machine["main"]
        self._inputs = [tensor.value for tensor in job.entry.inputs]
        self._weights: tuple[Any, ...] = ()
        if job.entry.weight_names:
            weights = read_weights(job.weights, job.entry.weight_names)
            self._weights = (tuple(tvm.runtime.from_dlpack(array) for array in weights),)

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        return list(self._main(*(_for_tvm(values[value]) for value in self._inputs), *self._weights))

    def profile(self, values: Mapping[int, Any], times: _Times) -> list[Any]:
        """Each compiled function on its own, with the very tensors an inference passes to it.

        Where the virtual machine is about to call one for the first time, it is timed on the spot: nothing has to
        be known about its parameters, integers are valid indices, and values are those that occur. What the
        virtual machine does itself (allocation, reshapes) is not in it.
        """
        import tvm

        modules = list(self._library.imports)

        def instrument(_function: Any, name: str, before: bool, _result: Any, *arguments: Any) -> int:
            if before and name not in times.calls:
                module = next((module for module in modules if module.implements_function(name)), None)
                if module is not None:
                    timer = module.time_evaluator(
                        name, tvm.cpu(), number=1, repeat=_REPEATS, min_repeat_ms=_MIN_REPEAT_MS
                    )
                    tensors = [argument for argument in arguments if hasattr(argument, "shape")]
                    times.add(name, tensors, float(timer(*arguments).median))
            if before:
                times.calls[name] = times.calls.get(name, 0) + 1
            return 0

        self._machine.set_instrument(instrument)
        outputs = self.run(values)
        # The machine cannot forget an instrument; one that does nothing costs some microseconds a call.
        self._machine.set_instrument(lambda *_: 0)
        return outputs


class _OnnxStage:
    """A stage that ONNX Runtime runs, as a device runs it."""

    def __init__(self, job: StageJob, threads: int) -> None:
        from tvmpipe.runtime.device.runners import load_stage
        from tvmpipe.runtime.device.weights import read_weights

        names = job.entry.weight_names
        weights = dict(zip(names, read_weights(job.weights, names), strict=True)) if names else {}
        self._name = job.entry.name
        self._inputs = [tensor.value for tensor in job.entry.inputs]
        self._runner = load_stage(job.entry, job.library, weights, threads)

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        return self._runner.run(self._read(values))

    def profile(self, values: Mapping[int, Any], times: _Times) -> list[Any]:
        """All of it: what its nodes take one by one is not told."""
        inputs = self._read(values)
        outputs = self._runner.run(inputs)
        runs = timeit.Timer(lambda: self._runner.run(inputs))
        number, seconds = runs.autorange()
        number = max(1, math.ceil(_MIN_REPEAT_MS * 1e-3 * number / seconds))
        taken = statistics.median(runs.repeat(_REPEATS, number)) / number
        times.add(self._name, [*inputs, *outputs], taken)
        times.calls[self._name] = 1
        return outputs

    def _read(self, values: Mapping[int, Any]) -> list[NDArray[Any]]:
        return [np.from_dlpack(values[value]) for value in self._inputs]


def _for_tvm(value: Any) -> Any:
    """A tensor that compiled code can read: its memory is aligned as TVM does it."""
    import tvm

    return tvm.runtime.tensor(value) if isinstance(value, np.ndarray) else value


class BundleRunner:
    """Stages one after the other, here and without RPC."""

    def __init__(self, job: BundleJob) -> None:
        self._stages: list[tuple[_Stage, tuple[int, ...]]] = [
            (
                _OnnxStage(stage, job.threads) if stage.entry.codegen == "onnxruntime" else _TvmStage(stage),
                tuple(tensor.value for tensor in stage.entry.outputs),
            )
            for stage in job.stages
        ]
        self._inputs = {value: _for_tvm(array) for value, array in job.inputs.items()}
        self._outputs = job.outputs

    def infer(self) -> list[Any]:
        """One inference."""
        return self._through(lambda stage, values: stage.run(values))

    def outputs(self) -> list[NDArray[Any]]:
        """Results in the order that was asked for."""
        return [np.from_dlpack(value).copy() for value in self.infer()]

    def profile(self) -> list[FunctionTime]:
        """What runs in an inference, each on its own, with warm caches."""
        times = _Times()
        self._through(lambda stage, values: stage.profile(values, times))
        return times.found()

    def _through(self, run: Callable[[_Stage, Mapping[int, Any]], list[Any]]) -> list[Any]:
        values = dict(self._inputs)
        for stage, outputs in self._stages:
            values.update(zip(outputs, run(stage, values), strict=True))
        return [values[value] for value in self._outputs]

    @staticmethod
    def peak(target: TargetDescription, threads: int) -> float:
        """FLOP/s of multiply-adds in this process."""
        from tvmpipe.profiling.peak import measure_peak_flops

        return measure_peak_flops(target, threads)


class OnnxRunner:
    """A model in ONNX Runtime on the CPU, all its optimizations on."""

    def __init__(self, job: OnnxJob) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(round(SPIN_S * 1e6)))
        self._session = onnxruntime.InferenceSession(str(job.model), options, providers=["CPUExecutionProvider"])
        wanted = {value.name for value in self._session.get_inputs()}
        self._feed = {name: array for name, array in job.inputs.items() if name in wanted}

    def infer(self) -> Any:
        """One inference."""
        return self._session.run(None, self._feed)

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Results by name."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self.infer(), strict=True))


class Timer:
    """Times single inferences of a runner and leaves the processor idle after each."""

    def __init__(self, runner: _Runner) -> None:
        self._runner = runner
        self._last_s = 0.0

    def time(self) -> float:
        """Seconds of one inference, after an untimed one where that is cheap: caches and threads are awake."""
        if self._last_s < _WARM_BELOW_S:
            self._runner.infer()
        started = time.perf_counter()
        self._runner.infer()
        self._last_s = time.perf_counter() - started
        _wait_until_quiet()
        return self._last_s

    def warm_up(self, runs: int) -> float:
        """Median seconds of some inferences."""
        return statistics.median(self.time() for _ in range(runs))


def _wait_until_quiet() -> None:
    """Return when no thread of this process runs any more, so that the other process has the cores to itself."""
    limit = time.monotonic() + _QUIET_LIMIT_S
    while time.monotonic() < limit:
        used = time.process_time()
        time.sleep(2e-3)
        if time.process_time() - used < 0.5e-3:
            return


def main(descriptor: int) -> None:
    """Serve requests `(method, arguments)` until the pipe closes; the first is `load` with a job.

    Each answer is `(True, result)` or `(False, sentence)`.
    """
    die_with_parent()
    targets: list[Any] = []
    with Connection(descriptor) as pipe:
        while True:
            try:
                method, arguments = pipe.recv()
            except EOFError:
                return
            try:
                if method == "load":
                    (job,) = arguments
                    runner: Any = BundleRunner(job) if isinstance(job, BundleJob) else OnnxRunner(job)
                    targets = [runner, Timer(runner)]
                    answer: tuple[bool, Any] = (True, None)
                else:
                    target = next(target for target in targets if hasattr(target, method))
                    answer = (True, getattr(target, method)(*arguments))
            except Exception as error:  # noqa: BLE001  # whatever it is, the parent says it in one sentence
                answer = (False, f"{type(error).__name__}: {reason_of(error)}")
            pipe.send(answer)
