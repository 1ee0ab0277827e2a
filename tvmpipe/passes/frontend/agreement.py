"""Whether a rewritten model still computes what the given one does: both run in ONNX Runtime, its optimisations off."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tvmpipe.equality import Comparison, Expected, compare, largest_difference
from tvmpipe.errors import reason_of
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.passes.frontend.weightless import large_weights, without_weights
from tvmpipe.tensors import TensorSpec

Array = NDArray[Any]

_SAMPLES = 2
_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_CHOICES = 2  # integers of which nothing is known are below this: valid as indices of almost any table


class CannotCompareError(Exception):
    """The given model does not run here, or its results prove nothing; the text says which."""


@dataclass(frozen=True)
class Model:
    """A model ready to run: large weights are fed, so that protobuf's 2 GiB bound none. `sessions` are made once."""

    stub: bytes
    weights: Mapping[str, Array]
    half: bool
    sessions: dict[bool, Any] = field(default_factory=dict)

    def run(self, sample: Mapping[str, Array], *, optimised: bool = False) -> list[Array]:
        """Results in the graph's order; raises what ONNX Runtime raises."""
        if optimised not in self.sessions:
            self.sessions[optimised] = session_of(self.stub, optimised=optimised)
        session = self.sessions[optimised]
        feed = {**sample, **self.weights}
        asked = {value.name for value in session.get_inputs()}
        return list(session.run(None, {name: array for name, array in feed.items() if name in asked}))


def runnable(model: onnx.ModelProto, outputs: Iterable[str] | None = None) -> Model:
    """The model for ONNX Runtime, with these values for its outputs instead of its own where they are given.

    Arrays of its weights are views where the file's bytes allow it.
    """
    weights = large_weights(model)
    types = [tensor.data_type for tensor in model.graph.initializer]
    types += [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    stub = without_weights(model, weights)
    if outputs is not None:
        ask_for(stub, outputs)
    return Model(
        stub.SerializeToString(),
        {name: numpy_helper.to_array(tensor) for name, tensor in weights.items()},
        any(kind in _HALVES for kind in types),
    )


def ask_for(model: onnx.ModelProto, outputs: Iterable[str]) -> None:
    """Let a model have these values for its outputs."""
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)


class Original:
    """The model as it was given, and what it answers to some seeded samples.

    Raises CannotCompareError where it does not run, or where no result depends on what it is given.
    """

    def __init__(self, model: onnx.ModelProto, inputs: Sequence[TensorSpec]) -> None:
        self._model = runnable(model)
        self._names = [value.name for value in model.graph.output]
        self._samples = [seeded_sample(inputs, seed) for seed in range(_SAMPLES)]
        try:
            self._answers = [self._model.run(sample) for sample in self._samples]
        except Exception as error:  # its exceptions have no common base
            raise CannotCompareError(f"ONNX Runtime does not run the model ({reason_of(error)})") from error
        first, *others = self._answers
        if all(_equal(a, b) for answer in others for a, b in zip(first, answer, strict=True)):
            raise CannotCompareError("the results do not depend on the inputs that were tried")

    def difference(self, changed: onnx.ModelProto) -> str | None:
        """How a rewritten model's results differ from this one's, in a sentence; None where they are the same."""
        other = runnable(changed)
        for sample, answer in zip(self._samples, self._answers, strict=True):
            try:
                results = dict(zip(self._names, map(_without_ends, other.run(sample)), strict=True))
            except Exception as error:  # noqa: BLE001  # its exceptions have no common base
                return f"ONNX Runtime does not run it any more: {reason_of(error)}"
            expected = Expected(dict(zip(self._names, map(_without_ends, answer), strict=True)), half=self._model.half)
            found = compare_runs(self._model, sample, expected, results)
            if found.verdict == "different":
                return found.sentence
        return None


def compare_runs(
    model: Model, sample: Mapping[str, Array], expected: Expected, results: Mapping[str, Array]
) -> Comparison:
    """Compare results with what `model` answers to a sample, whose noise floor is looked for where they differ."""
    found = compare(results, expected)
    if found.verdict == "different" and np.isfinite(found.difference):
        found = compare(results, replace(expected, floor=_floor(model, sample, expected)))
    return found


def _floor(model: Model, sample: Mapping[str, Array], expected: Expected) -> dict[str, float]:
    """How far ONNX Runtime's own optimisations move each output."""
    moved = dict(zip(expected.outputs, model.run(sample, optimised=True), strict=True))
    pairs = ((name, moved[name], want) for name, want in expected.outputs.items() if want.dtype.kind == "f")
    floors = {name: largest_difference(have, want) for name, have, want in pairs if have.shape == want.shape}
    return {name: floor for name, floor in floors.items() if np.isfinite(floor)}


def seeded_sample(inputs: Sequence[TensorSpec], seed: int) -> dict[str, Array]:
    """Floats of a standard normal distribution, integers that may look something up, booleans; always the same."""
    arrays: dict[str, Array] = {}
    for spec in inputs:
        random = seeded_generator(spec.name, seed)
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            arrays[spec.name] = random.standard_normal(spec.shape).astype(dtype)
        else:
            largest = 256 if dtype == np.uint8 else 2 if dtype.kind == "b" else spec.below or _CHOICES
            arrays[spec.name] = random.integers(0, largest, spec.shape).astype(dtype)
    return arrays


def seeded_generator(name: str, seed: int) -> np.random.Generator:
    """What an input's content is drawn from: the same in every process, another for each input."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _without_ends(array: Array) -> Array:
    """Floats with infinity for the largest numbers: ONNX Runtime masks with these, the standard with that."""
    if array.dtype.kind != "f":
        return array
    ends = np.finfo(array.dtype)
    return np.where(array <= ends.min, -np.inf, np.where(array >= ends.max, np.inf, array)).astype(array.dtype)


def _equal(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
