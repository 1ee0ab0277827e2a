"""A whole model on one device of this host against ONNX Runtime, and where the time goes.

The two run in processes of their own and by turns, one inference each, so that a change of the host's speed meets
both; `ratio` is the median of the ratios of such pairs. A thread pool that waits actively for more work slows the
other process where both use the same cores: by default TVM's does for 70 ms, ONNX Runtime's for longer. Neither is
forbidden to wait so, as `session.intra_op.allow_spinning=0` would: on two threads that cost ONNX Runtime 5 to 15 %
(squeezenet), which would count for us. Both do it for 5 ms instead, and a turn ends when the process is quiet.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tvmpipe.bench.worker import SPIN_COUNT, BundleJob, FunctionTime, OnnxJob, StageJob
from tvmpipe.equality import Comparison, Results, compare
from tvmpipe.errors import ClusterError, DeviceError
from tvmpipe.process import compute_environment
from tvmpipe.runtime.head.sample import Fitting
from tvmpipe.tensors import random_tensor

if TYPE_CHECKING:
    from tvmpipe.bundle import Bundle
    from tvmpipe.manifest import Manifest
    from tvmpipe.passes.frontend.options import ImportOptions
    from tvmpipe.passes.graph.primitives import Primitive
    from tvmpipe.passes.monitor import Progress
    from tvmpipe.targets.description.target import TargetDescription

Against = Literal["onnxruntime", "none"]

_Result = TypeVar("_Result")
_WARM_UPS = 3
_DEADLINE_S = 600.0  # for any one request to a process: an inference of a model that hardly fits, say


@dataclass(frozen=True)
class PrimitiveTime:
    """A primitive on its own, or all of a stage that ONNX Runtime runs: `calls` per inference, `call_s` seconds of one,
    `flops` of one call.

    `shapes` are those of its tensors, weights included and results last. `flops` is 0 where nobody counted them;
    then `gflops` and `peak_share` are 0 as well.
    """

    name: str
    operators: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    calls: int
    call_s: float
    flops: float
    gflops: float
    peak_share: float

    @property
    def total_s(self) -> float:
        """Seconds of all its calls in one inference."""
        return self.calls * self.call_s


@dataclass(frozen=True)
class BenchResult:
    """What `bench_model` found. The fields of ONNX Runtime are None when it did not run.

    Attributes: `ratio` median over pairs of tvmpipe's seconds over ONNX Runtime's (below 1: tvmpipe is faster),
    `ratio_quartiles` the middle half of them, `runs` how many; `tvmpipe_s`, `onnxruntime_s` medians;
    `comparison` of tvmpipe's results with ONNX Runtime's; `compile_s` from the ONNX file to the bundle; `peak_gflops`
    measured, of all threads; `gflops` of the whole model; `primitives` by their share of the time.
    """

    model: str
    device: str
    threads: int
    runs: int
    ratio: float | None
    ratio_quartiles: tuple[float, float] | None
    tvmpipe_s: float
    onnxruntime_s: float | None
    comparison: Comparison | None
    compile_s: float
    peak_gflops: float
    gflops: float
    primitives: tuple[PrimitiveTime, ...]


def bench_model(
    model: str | Path,
    *,
    device: str = "native",
    own: Sequence[TargetDescription] = (),
    threads: int = 1,
    importing: ImportOptions | None = None,
    runs: int = 20,
    seconds: float = 0.0,
    against: Against = "onnxruntime",
    sample: Callable[[Manifest], Mapping[str, NDArray[Any]]] | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Compile an ONNX file for one device, run it here on `threads` threads, `runs` times by turns with `against`.

    More often where that takes less than `seconds`: on a host that is shared a short look says little.

    `device` is a target that this host can execute, one of tvmpipe's or of a user's `own`; the bucket
    that is timed is the one of the sample.
    `sample` makes the inputs by name for what the manifest says of them; without it they are seeded random tensors, as
    `tvmpipe.tensors.random_tensor` makes them, of the largest bucket. Wrong results are reported, not refused.

    Raises ModelError, ClusterError and SampleError for bad input, DeviceError when a process fails.
    """
    path = Path(model)
    target = _executable_target(device, own)
    started = time.perf_counter()
    bundle, costs, fixed = _compile(path, target, threads, importing, progress)
    compile_s = time.perf_counter() - started
    manifest = bundle.manifest
    fitted = Fitting(manifest).fit((sample or _random_sample)(manifest))
    given, bucket = fitted.inputs, manifest.buckets[fitted.bucket]
    stages = tuple(
        StageJob(stage, bundle.path_of(stage.library), tuple(map(bundle.path_of, stage.weight_files)))
        for stage in manifest.plan.stages_of(fitted.bucket)
    )
    whole = {**given, **fixed}  # what the file takes
    inputs = {value: given[name] for name, value in bucket.model_inputs.items()}

    ratio = quartiles = onnxruntime_s = comparison = None
    variables = compute_environment(threads) | {"TVM_THREAD_POOL_SPIN_COUNT": str(SPIN_COUNT)}
    with _Worker(target.name, variables) as ours:
        ours.ask("load", BundleJob(stages, threads, inputs, tuple(bucket.model_outputs.values())))
        have = dict(zip(bucket.model_outputs, ours.ask("outputs"), strict=True))
        if against == "onnxruntime":
            with _Worker("ONNX Runtime", {}) as theirs:
                theirs.ask("load", OnnxJob(path, threads, whole))
                comparison = _compare(path, threads, whole, have, theirs.ask("outputs"))
                pairs = _alternate(ours, theirs, runs, seconds)
                runs = len(pairs)
            ratios = [mine / other for mine, other in pairs]
            ratio = statistics.median(ratios)
            quartiles = (float(np.quantile(ratios, 0.25)), float(np.quantile(ratios, 0.75)))
            tvmpipe_s = statistics.median(mine for mine, _ in pairs)
            onnxruntime_s = statistics.median(other for _, other in pairs)
        else:
            ours.ask("warm_up", _WARM_UPS)
            alone = _repeated(lambda _: ours.ask("time"), runs, seconds)
            tvmpipe_s, runs = statistics.median(alone), len(alone)
        peak = ours.ask("peak", target, threads)
        times: list[FunctionTime] = ours.ask("profile")
    primitives = tuple(_primitive(one, costs[fitted.bucket], peak) for one in times)
    return BenchResult(
        model=manifest.model.name,
        device=device,
        threads=threads,
        runs=runs,
        ratio=ratio,
        ratio_quartiles=quartiles,
        tvmpipe_s=tvmpipe_s,
        onnxruntime_s=onnxruntime_s,
        comparison=comparison,
        compile_s=compile_s,
        peak_gflops=peak / 1e9,
        gflops=sum(one.calls * one.flops for one in primitives) / tvmpipe_s / 1e9,
        primitives=tuple(sorted(primitives, key=lambda one: -one.total_s)),
    )


def _random_sample(manifest: Manifest) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(0)
    return {spec.name: random_tensor(spec, generator) for spec in manifest.model.inputs}


def _compare(path: Path, threads: int, sample: Results, have: Results, optimised: Results) -> Comparison:
    """The reference lives in here only: nothing of it is there any more when times are taken."""
    from tvmpipe.reference.results import Reference

    reference = Reference(path, threads)
    return compare(have, reference.expect(sample, optimised), steps=int(reference.quantised))


@dataclass(frozen=True)
class _Cost:
    name: str
    operators: tuple[str, ...]
    flops: float


def _executable_target(name: str, own: Sequence[TargetDescription]) -> TargetDescription:
    """The target, if this host's architecture is its; whether the processor has all its instructions, runs show."""
    from tvmpipe.targets.description.boards import find_target

    target, host = find_target(name, own), find_target("native")
    if target.architecture != host.architecture:
        raise ClusterError(f"device {name!r} is {target.architecture}, this host {host.architecture}; it cannot run it")
    return target


def _compile(
    path: Path,
    target: TargetDescription,
    threads: int,
    importing: ImportOptions | None,
    progress: Progress | None,
) -> tuple[Bundle, list[dict[str, _Cost]], Mapping[str, NDArray[Any]]]:
    """A bundle as `tvmpipe compile` writes it, what functions and stages of ONNX Runtime cost in each bucket, by name,
    and inputs made constants.
    """
    from tvmpipe.passes import driver
    from tvmpipe.passes.frontend.options import ImportOptions
    from tvmpipe.passes.graph.primitives import ONNXRUNTIME
    from tvmpipe.passes.monitor import Monitor
    from tvmpipe.targets.description.cluster import Cluster, Device

    cluster = Cluster((Device("device", "device", target, threads, None),), {})
    monitor = Monitor(driver.COMPILE, progress)
    importing = importing or ImportOptions()
    if not importing.states:  # what the file takes and gives is what ONNX Runtime runs it with
        importing = replace(importing, stateful=False)
    fused = driver.front(path, importing, monitor)
    planned = driver.plan(fused, cluster, monitor=monitor)
    made = driver.compile(planned, monitor)
    shapes = (made.plan.stages, *(price.stages for price in made.bucket_prices(made.plan)))
    costs = []
    for number, (graph, cut) in enumerate(zip(made.graphs, shapes, strict=True)):
        costs.append({one.function: _Cost(one.function, one.operators, one.flops) for one in graph.primitives})
        for entry, shape in zip(made.bundle.manifest.plan.stages_of(number), cut, strict=True):
            if entry.codegen == ONNXRUNTIME:
                costs[number][entry.name] = _stage_cost([graph.primitives[index] for index in shape.primitives])
    return made.bundle, costs, made.values


def _stage_cost(primitives: Sequence[Primitive]) -> _Cost:
    operators = tuple(operator for primitive in primitives for operator in primitive.operators)
    name, flops = " + ".join(one.function for one in primitives), sum(one.flops for one in primitives)
    return _Cost(name, operators, flops)


def _alternate(ours: _Worker, theirs: _Worker, runs: int, seconds: float) -> list[tuple[float, float]]:
    """Seconds of both, in pairs; every other pair starts with the other one."""
    for worker in (ours, theirs):
        worker.ask("warm_up", _WARM_UPS)

    def pair(run: int) -> tuple[float, float]:
        if run % 2:
            other = theirs.ask("time")
            return ours.ask("time"), other
        return ours.ask("time"), theirs.ask("time")

    return _repeated(pair, runs, seconds)


def _repeated(measure: Callable[[int], _Result], runs: int, seconds: float) -> list[_Result]:
    """Results of calls with 0, 1, 2, …: at least so many, and over so many seconds."""
    end = time.monotonic() + seconds
    results: list[_Result] = []
    while len(results) < runs or time.monotonic() < end:
        results.append(measure(len(results)))
    return results


def _primitive(one: FunctionTime, costs: Mapping[str, _Cost], peak: float) -> PrimitiveTime:
    """A timed function with the operators and FLOPs of the primitive it was compiled from, if it has its name."""
    cost = costs.get(one.name, _Cost(one.name, (one.name,), 0.0))
    rate = cost.flops / one.call_s if one.call_s else 0.0
    return PrimitiveTime(
        name=cost.name,
        operators=cost.operators,
        shapes=one.shapes,
        calls=one.calls,
        call_s=one.call_s,
        flops=cost.flops,
        gflops=rate / 1e9,
        peak_share=rate / peak,
    )


class _Worker:
    """A `tvmpipe.bench.worker` process with these environment variables too; `what` is what it runs, for errors."""

    def __init__(self, what: str, variables: Mapping[str, str]) -> None:
        self._what = what
        self._pipe, child = Pipe()
        # Not `-m`: the classes that are sent must be those of the imported module, not of `__main__`.
        serve = f"from tvmpipe.bench.worker import main; main({child.fileno()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", serve],
            env={**os.environ, **variables},
            pass_fds=[child.fileno()],
            stdin=subprocess.DEVNULL,
        )
        child.close()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker. Raises DeviceError when it fails, dies or takes too long."""
        try:
            self._pipe.send((method, arguments))
            if not self._pipe.poll(_DEADLINE_S):
                self._process.kill()
                raise DeviceError(f"the process of {self._what} did not answer {method!r} in {_DEADLINE_S:g} s")
            done, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if not done:
            raise DeviceError(f"the process of {self._what} failed: {answer}")
        return answer

    def _death(self) -> DeviceError | ClusterError:
        code = self._process.wait()
        if code == -signal.SIGILL:
            return ClusterError(f"this host has not all instructions of {self._what}; choose another device")
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return DeviceError(f"the process of {self._what} ended with {reason}")
