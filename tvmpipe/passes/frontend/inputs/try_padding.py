"""Whether samples may be padded: the model is run in ONNX Runtime with some as they are, and padded and cut back.

A mask makes a padded sequence give the same; a mean over the sequence, say, does not. Where it does not, a bucket takes
samples of its own extents only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tvmpipe.equality import Expected
from tvmpipe.errors import InputError, reason_of
from tvmpipe.padding import Extents, cut_back, pad, show_extents
from tvmpipe.passes.frontend.agreement import Model, compare_runs, runnable, seeded_generator
from tvmpipe.tensors import TensorSpec

Array = NDArray[Any]

_SEEDS = 2
_PREFIX = "results differ from the reference's: "


@dataclass(frozen=True)
class Padding:
    """`axes` names of the dimensions of inputs and outputs, `pads` what inputs are padded with."""

    axes: Mapping[str, tuple[str, ...]]
    pads: Mapping[str, float]

    def without_pad(self, dimension: str, inputs: Sequence[TensorSpec]) -> str | None:
        """An input that has the dimension and nothing to be padded with."""
        having = (spec.name for spec in inputs if dimension in self.axes.get(spec.name, ()))
        return next((name for name in having if name not in self.pads), None)


Bucket = tuple[Sequence[TensorSpec], Extents]
"""The inputs of a model in a bucket, and its extents."""


def exact_dimensions(
    model: onnx.ModelProto, buckets: Sequence[Bucket], padding: Padding, outputs: Sequence[TensorSpec] = ()
) -> list[dict[str, str]]:
    """For each bucket the dimensions along which no smaller sample may be padded, each with the reason.

    `model` is as it was given, its dimensions open. Where data decides on the shape of one of its `outputs`, a few
    samples show too little of what padding adds to it. Raises InputError for a pad that its input cannot hold.
    """
    first, extents = buckets[0]
    _check_values(first, padding.pads)
    unpadded = {
        name: f"input {missing!r} has no --pad"
        for name in extents
        if (missing := padding.without_pad(name, first)) is not None
    }
    undecided = next((spec.name for spec in outputs if spec.open), None)
    if undecided is not None:
        unpadded = dict.fromkeys(extents, f"the shape of output {undecided!r} depends on the data") | unpadded
    if len(unpadded) == len(extents):
        return [dict(unpadded) for _ in buckets]
    trial = _Trial(model, padding)
    return [unpadded | trial.refused(bucket, [name for name in extents if name not in unpadded]) for bucket in buckets]


def _check_values(inputs: Sequence[TensorSpec], pads: Mapping[str, float]) -> None:
    for spec in inputs:
        if spec.name not in pads:
            continue
        value, dtype = pads[spec.name], np.dtype(spec.dtype)
        if not math.isfinite(value):
            raise InputError(f"--pad {spec.name}={value:g} is no number; allowed are those that are finite")
        if dtype.kind == "f":
            continue
        limits = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        if value != int(value) or not limits[0] <= value <= limits[1]:
            raise InputError(
                f"--pad {spec.name}={value:g} does not fit its elements of type {spec.dtype}; allowed are whole "
                f"numbers from {limits[0]} to {limits[1]}"
            )


class _Trial:
    def __init__(self, model: onnx.ModelProto, padding: Padding) -> None:
        self._model: Model = runnable(model)
        self._names = [value.name for value in model.graph.output]
        self._padding = padding

    def refused(self, bucket: Bucket, dimensions: Sequence[str]) -> dict[str, str]:
        """Which of `dimensions` samples cannot be padded along, alone or with the others, and why."""
        inputs, extents = bucket
        tried = [name for name in dimensions if extents[name] > 1]  # nothing is smaller than 1
        reasons = {name: why for name in tried if (why := self._along(inputs, extents, [name])) is not None}
        left = [name for name in tried if name not in reasons]
        if len(left) > 1 and (why := self._along(inputs, extents, left)) is not None:
            reasons |= dict.fromkeys(left, why)
        return reasons

    def _along(self, inputs: Sequence[TensorSpec], extents: Extents, along: Sequence[str]) -> str | None:
        """What is wrong with padding along some dimensions to these extents; None where nothing is found."""
        shown = False
        refused = ""
        for smaller in _smaller(extents, along):
            what = f"a sample of {show_extents({name: smaller[name] for name in along})} padded to "
            what += show_extents({name: extents[name] for name in along})
            for seed in range(_SEEDS):
                sample = {spec.name: self._draw(spec, smaller, seed) for spec in inputs}
                try:
                    answer = self._model.run(sample)
                except Exception as error:  # noqa: BLE001  # its exceptions have no common base
                    refused = refused or reason_of(error)  # such a sample is none of this model's
                    break
                larger = {spec.name: self._padded(spec, sample[spec.name]) for spec in inputs}
                try:
                    results = self._model.run(larger)
                except Exception as error:  # noqa: BLE001
                    return f"ONNX Runtime does not run {what}: {reason_of(error)}"
                cut = [
                    cut_back(array, self._padding.axes.get(name, ()), smaller)
                    for name, array in zip(self._names, results, strict=True)
                ]
                expected = Expected(dict(zip(self._names, answer, strict=True)), half=self._model.half)
                found = compare_runs(self._model, sample, expected, dict(zip(self._names, cut, strict=True)))
                if found.verdict == "different":
                    return f"{what} gives other results: {found.sentence.removeprefix(_PREFIX)}"
                shown = shown or found.equal
        if shown:
            return None
        return f"ONNX Runtime runs no smaller sample ({refused})" if refused else "what was tried proves nothing"

    def _draw(self, spec: TensorSpec, extents: Extents, seed: int) -> Array:
        """Content for an input: seeded, and where that can be told nothing that it is padded with."""
        axes = self._padding.axes.get(spec.name, ())
        shape = (
            [extents.get(name, extent) for name, extent in zip(axes, spec.shape, strict=True)] if axes else spec.shape
        )
        random = seeded_generator(spec.name, seed)
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            return random.standard_normal(shape).astype(dtype)
        count = 2 if dtype.kind == "b" else spec.below or (256 if dtype == np.uint8 else 2)
        avoided = self._padding.pads.get(spec.name)
        if avoided is None or not 0 <= avoided < count or count < 2:
            return random.integers(0, count, shape).astype(dtype)
        numbers = random.integers(0, count - 1, shape)
        return np.asarray(numbers + (numbers >= avoided)).astype(dtype)

    def _padded(self, spec: TensorSpec, array: Array) -> Array:
        return array if array.shape == spec.shape else pad(array, spec.shape, self._padding.pads[spec.name])


def _smaller(extents: Extents, along: Sequence[str]) -> Iterator[dict[str, int]]:
    """Extents that are smaller along some dimensions: by one, half as large, and 1."""
    seen: list[dict[str, int]] = []
    for shrink in (lambda extent: extent - 1, lambda extent: (extent + 1) // 2, lambda _: 1):
        smaller = {**extents, **{name: shrink(extents[name]) for name in along}}
        if smaller not in seen:
            seen.append(smaller)
            yield smaller
