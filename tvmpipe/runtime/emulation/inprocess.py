"""A plan in this process instead of on devices: its stages one after the other, no sockets, no threads.

For tests of what runs on top, and to try a bundle where no device is at hand. Only stages compiled for an
architecture and instruction set that this machine has can be loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tvmpipe.bundle import Bundle
from tvmpipe.manifest import Files, Manifest, PlanEntry, StageEntry
from tvmpipe.runtime.device.runners import Runner, load_stage
from tvmpipe.runtime.device.weights import read_weights
from tvmpipe.runtime.head.sample import Fitting, Result, Sample


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

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._runners.clear()

    def run(self, sample: Sample) -> Result:
        """Results of one sample. Raises SampleError when it is not what the model takes."""
        fitted = self._fitting.fit(sample)
        bucket = self._buckets[fitted.bucket]
        values = {value: fitted.inputs[name] for name, value in bucket.model_inputs.items()}
        number, self._count = self._count, self._count + 1
        for stage in self.plan.stages_of(fitted.bucket):
            if not stage.turn.takes(number):
                continue
            outputs = self._runners[stage.name].run([values[tensor.value] for tensor in stage.inputs])
            values.update((t.value, array) for t, array in zip(stage.outputs, outputs, strict=True))
        return self._fitting.result(fitted, {name: values[value] for name, value in bucket.model_outputs.items()})

    def stream(self, samples: Iterable[Sample]) -> Iterator[Result]:
        """Results of `samples`, in their order."""
        return map(self.run, samples)


def _load(stage: StageEntry, files: Files) -> Runner:
    weights = read_weights([files.path_of(file) for file in stage.weight_files], stage.weight_names)
    return load_stage(stage, files.path_of(stage.library), dict(zip(stage.weight_names, weights, strict=True)))


def run_in_process(bundle: Bundle, plan: PlanEntry | None = None) -> InProcess:
    """Load a plan of the bundle, by default the one to start with."""
    return InProcess(bundle.manifest, bundle, bundle.manifest.plan if plan is None else plan)
