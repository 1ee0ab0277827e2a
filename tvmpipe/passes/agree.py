"""Whether a rewritten model still computes what the given one does: both run in ONNX Runtime, its optimisations off."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tvmpipe.passes.onnxruntime_session import session_of
from tvmpipe.passes.weightless import large_weights, without_weights
from tvmpipe.tensors import TensorSpec

Array = NDArray[Any]

_SAMPLES = 2
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6  # of the largest value, and of one
_HALF_RELATIVE = 1e-2
_FLOORS = 4  # so many times what ONNX Runtime's own optimisations change is right too
_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_CHOICES = 2  # integers are below this: valid as indices of almost any table


class CannotCompareError(Exception):
    """The given model does not run here, or its results prove nothing; the text says which."""


@dataclass(frozen=True)
class Model:
    """A model ready to run: large weights are fed, so that protobuf's 2 GiB bound none."""

    stub: bytes
    weights: Mapping[str, Array]
    half: bool

    def run(self, sample: Mapping[str, Array], *, optimised: bool = False) -> list[Array]:
        """Results in the graph's order; raises what ONNX Runtime raises."""
        session = session_of(self.stub, optimised=optimised)
        feed = {**sample, **self.weights}
        asked = {value.name for value in session.get_inputs()}
        return list(session.run(None, {name: array for name, array in feed.items() if name in asked}))


def runnable(model: onnx.ModelProto) -> Model:
    """The model for ONNX Runtime; arrays of its weights are views where the file's bytes allow it."""
    weights = large_weights(model)
    types = [tensor.data_type for tensor in model.graph.initializer]
    types += [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    return Model(
        without_weights(model, weights).SerializeToString(),
        {name: numpy_helper.to_array(tensor) for name, tensor in weights.items()},
        any(kind in _HALVES for kind in types),
    )


class Original:
    """The model as it was given, and what it answers to some seeded samples.

    Raises CannotCompareError where it does not run, or where no result depends on what it is given.
    """

    def __init__(self, model: onnx.ModelProto, inputs: Sequence[TensorSpec]) -> None:
        self._model = runnable(model)
        self._names = [value.name for value in model.graph.output]
        self._samples = [_sample(inputs, seed) for seed in range(_SAMPLES)]
        try:
            self._answers = [self._model.run(sample) for sample in self._samples]
        except Exception as error:  # its exceptions have no common base
            raise CannotCompareError(f"ONNX Runtime does not run the model ({_last_line(error)})") from error
        first, *others = self._answers
        if all(_equal(a, b) for answer in others for a, b in zip(first, answer, strict=True)):
            raise CannotCompareError("the results do not depend on the inputs that were tried")

    def difference(self, changed: onnx.ModelProto) -> str | None:
        """How a rewritten model's results differ from this one's, in a few words; None where they are the same."""
        other = runnable(changed)
        for sample, expected in zip(self._samples, self._answers, strict=True):
            try:
                found = other.run(sample)
            except Exception as error:  # noqa: BLE001  # its exceptions have no common base
                return f"ONNX Runtime does not run it any more: {_last_line(error)}"
            floor: list[Array] | None = None
            for place, (name, want, have) in enumerate(zip(self._names, expected, found, strict=True)):
                if _close(want, have, 0.0, self._model.half):
                    continue
                if _comparable(want, have):
                    floor = floor or self._model.run(sample, optimised=True)
                    noise = _distance(want, floor[place])
                    if np.isfinite(noise) and _close(want, have, _FLOORS * noise, self._model.half):
                        continue
                return _told(name, want, have)
        return None


def _sample(inputs: Sequence[TensorSpec], seed: int) -> dict[str, Array]:
    """Floats of a standard normal distribution, small integers, booleans; the same in every process."""
    arrays: dict[str, Array] = {}
    for spec in inputs:
        random = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            arrays[spec.name] = random.standard_normal(spec.shape).astype(dtype)
        else:
            largest = 256 if dtype == np.uint8 else _CHOICES
            arrays[spec.name] = random.integers(0, largest, spec.shape).astype(dtype)
    return arrays


def _equal(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))


def _comparable(want: Array, have: Array) -> bool:
    return want.shape == have.shape and want.dtype == have.dtype and want.dtype.kind == "f"


def _distance(want: Array, have: Array) -> float:
    """The largest difference where both are finite; infinite where one is not and the other differs from it."""
    if want.shape != have.shape:
        return float("inf")
    a, b = want.astype(np.float64), have.astype(np.float64)
    with np.errstate(invalid="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        apart = np.where(same, 0.0, np.abs(a - b))
    return float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max(initial=0.0))


def _close(want: Array, have: Array, floor: float, half: bool) -> bool:
    if not _comparable(want, have):
        return want.dtype == have.dtype and _equal(want, have)
    largest = float(np.abs(np.where(np.isfinite(want), want, 0).astype(np.float64)).max(initial=0.0))
    allowed = _HALF_RELATIVE * largest if half else _RELATIVE * largest + _ABSOLUTE
    return _distance(want, have) <= max(allowed, floor)


def _told(name: str, want: Array, have: Array) -> str:
    if want.shape != have.shape:
        return f"output {name!r} has shape {list(have.shape)} for {list(want.shape)}"
    if not _comparable(want, have):
        return f"output {name!r} is another one"
    return f"output {name!r} differs by {_distance(want, have):.2g}"


def _last_line(error: BaseException) -> str:
    lines: Iterator[str] = (line.strip() for line in str(error).splitlines() if line.strip())
    return next(reversed(list(lines)), type(error).__name__)
