"""Sessions that packages take for ONNX Runtime's: tvmpipe answers, and each answer is compared with ONNX Runtime's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tvmpipe.equality import Comparison
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.options import BuildOptions
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import InProcess, run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

Array = NDArray[Any]

_CLUSTER = parse_cluster('[[device]]\nname = "one"\nthreads = 1\n')
_MOST_SHAPES = 4  # of inputs that one session compiles for


@dataclass
class Used:
    """What became of one model file: how often it ran, what was found, and the ONNX nodes on either side."""

    path: Path
    found: list[Comparison] = field(default_factory=list)
    nodes: int = 0
    left: dict[str, str] = field(default_factory=dict)


class Recorder:
    """Makes sessions while it stands in; `plain` has them answer as ONNX Runtime does."""

    def __init__(self, fixed: frozenset[str] = frozenset()) -> None:
        self.fixed = fixed
        self.plain = False
        self.used: dict[Path, Used] = {}
        self._real = onnxruntime.InferenceSession
        self._ours = type("InferenceSession", (_Session,), {"recorder": self})

    @contextlib.contextmanager
    def standing_in(self) -> Iterator[None]:
        """Within, `onnxruntime.InferenceSession` makes our sessions."""
        onnxruntime.InferenceSession = self._ours
        try:
            yield
        finally:
            onnxruntime.InferenceSession = self._real

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within, it makes its own: tvmpipe has ONNX Runtime run much."""
        before, onnxruntime.InferenceSession = onnxruntime.InferenceSession, self._real
        try:
            yield
        finally:
            onnxruntime.InferenceSession = before


class _Session:
    recorder: Recorder

    def __init__(self, model: str | Path, *arguments: Any, **options: Any) -> None:
        self._path = Path(model)
        with self.recorder.aside():
            self._real = onnxruntime.InferenceSession(str(model), *arguments, **options)
            self._reference = Reference(self._path, threads=1)
        self._used = self.recorder.used.setdefault(self._path, Used(self._path))
        self._compiled: dict[object, InProcess] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Any], *_: Any) -> list[Array]:
        sample = {name: self._array(name, value) for name, value in feed.items()}
        wanted = list(names or (output.name for output in self._real.get_outputs()))
        with self.recorder.aside():
            if self.recorder.plain:
                results = self._reference.run(sample)
            else:
                results = self._bundle(sample).run({k: v for k, v in sample.items() if k not in self.recorder.fixed})
                self._used.found.append(self._reference.compare(results, sample))
        return [results[name] for name in wanted]

    def _array(self, name: str, value: Any) -> Array:
        """As ONNX Runtime does, lists become what the model takes."""
        if isinstance(value, np.ndarray | np.generic):
            return np.asarray(value)
        (element,) = (one.type for one in self._real.get_inputs() if one.name == name)
        return np.asarray(value, {"tensor(float)": "float32"}.get(element, element[len("tensor(") : -1]))

    def _bundle(self, sample: Mapping[str, Array]) -> InProcess:
        fixed = {name: array for name, array in sample.items() if name in self.recorder.fixed}
        shapes = {name: array.shape for name, array in sample.items() if name not in fixed}
        key = (tuple(sorted(shapes.items())), tuple((name, array.tobytes()) for name, array in sorted(fixed.items())))
        if key not in self._compiled:
            if len(self._compiled) == _MOST_SHAPES:
                raise ValueError(f"{self._path.name} got inputs of more than {_MOST_SHAPES} shapes: {shapes}")
            self._compiled[key] = self._compile(shapes, fixed)
        return self._compiled[key]

    def _compile(self, shapes: Mapping[str, tuple[int, ...]], fixed: Mapping[str, Array]) -> InProcess:
        fused = driver.front(self._path, ImportOptions(shapes=shapes, values=fixed, stateful=False))
        compiled = driver.compile(driver.plan(fused, _CLUSTER, BuildOptions()))
        primitives = compiled.graph.primitives
        self._used.nodes = len({node for one in primitives for node in one.onnx_nodes})
        self._used.left = {
            node: why for one in primitives if one.fallback for node, why in one.fallback.reasons.items()
        }
        return run_in_process(compiled.bundle)
