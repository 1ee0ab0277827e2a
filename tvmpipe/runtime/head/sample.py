"""What a model is given and gives back, and which bucket of it does that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.errors import SampleError
from tvmpipe.manifest import BucketEntry, Manifest
from tvmpipe.padding import cut_back, pad, show_extents
from tvmpipe.runtime.head.replay_blocks import step_dimension
from tvmpipe.tensors import TensorSpec, element_dtype

Sample = Mapping[str, NDArray[Any]]
"""Input name -> array."""

Result = dict[str, NDArray[Any]]
"""Output name -> array."""


@dataclass(frozen=True)
class Fitted:
    """A sample as a bucket takes it: its number, its inputs, and the sample's own extents where it was padded."""

    bucket: int
    inputs: Result
    extents: Mapping[str, int] = field(default_factory=dict)


class Fitting:
    """Puts samples into a model's buckets. Each goes into the smallest that holds it: the fewest bytes of inputs."""

    def __init__(self, manifest: Manifest) -> None:
        self._buckets = manifest.buckets
        self._specs = manifest.sample_inputs
        self._length = None
        if manifest.sequences is not None and manifest.sequences.length is not None:
            self._length = next(spec for spec in manifest.model.inputs if spec.name == manifest.sequences.length)
        self._axes = {} if manifest.open is None else manifest.open.axes
        self._pads = {} if manifest.open is None else manifest.open.pads
        sizes = [sum(spec.size_bytes for spec in bucket.inputs) for bucket in self._buckets]
        self._order = sorted(range(len(sizes)), key=lambda number: sizes[number])

    def fit(self, sample: Sample, length: int = 0) -> Fitted:
        """The sample in its bucket: dense arrays in the model's order, padded at their ends where they are smaller.

        `length` is what the model is told that its sequence has, where it asks for that. Arrays are not copied where
        they are as the bucket has them. Raises SampleError with one sentence.
        """
        inputs = self._arrays(sample)
        number, extents = self._bucket_of(inputs)
        bucket = self._buckets[number]
        if self._length is not None:
            inputs[self._length.name] = np.full(self._length.shape, length, self._length.dtype)
        if all(inputs[spec.name].shape == spec.shape for spec in bucket.inputs):
            return Fitted(number, inputs)
        padded = {
            spec.name: inputs[spec.name]
            if inputs[spec.name].shape == spec.shape
            else pad(inputs[spec.name], spec.shape, self._pads[spec.name])
            for spec in bucket.inputs
        }
        return Fitted(number, padded, extents)

    def check(self, sample: Sample) -> Result:
        """The sample's arrays, dense, in the model's order, and not padded. Raises SampleError with one sentence."""
        inputs = self._arrays(sample)
        self._bucket_of(inputs)
        return inputs

    def result(self, fitted: Fitted, outputs: Result) -> Result:
        """What a bucket makes of a sample, without what is there only because the sample was padded.

        Raises SampleError where the package is missing that has arrays of an output's type.
        """
        outputs = _as_the_model_has_them(self._buckets[fitted.bucket].outputs, outputs)
        if not fitted.extents:
            return outputs
        return {name: cut_back(array, self._axes.get(name, ()), fitted.extents) for name, array in outputs.items()}

    def _arrays(self, sample: Sample) -> Result:
        """Arrays in the model's order and this machine's byte order; not copied where they are so."""
        specs = self._specs
        names = [spec.name for spec in specs]
        if not isinstance(sample, Mapping):
            raise SampleError(
                f"a sample is a mapping of input names to arrays, not {_described(sample)}; the model takes "
                f"{', '.join(names)}"
            )
        for name in sample:
            if name not in names:
                raise SampleError(f"input {name!r} is not one of the model's; allowed: {', '.join(names)}")
        inputs = {}
        for spec in specs:
            if spec.name not in sample:
                raise SampleError(f"input {spec.name!r} is missing; the model takes {', '.join(names)}")
            try:
                array = np.asarray(sample[spec.name])
            except ValueError as error:  # lists of unequal lengths, say
                raise SampleError(f"input {spec.name!r} is no array: {error}") from None
            if array.dtype.name not in (spec.element or spec.dtype, spec.dtype):
                wanted = spec.element or spec.dtype
                raise SampleError(f"input {spec.name!r} has dtype {array.dtype.name}; the model takes {wanted}")
            if spec.element is not None and array.dtype.name == spec.dtype:
                _check_carried(array, spec)
            self._check_shape(spec, array.shape)
            # A dtype has the same name in both byte orders. Numbers of types that numpy lacks travel in wider ones.
            inputs[spec.name] = np.ascontiguousarray(array, np.dtype(spec.dtype)).reshape(array.shape)
        return inputs

    def _check_shape(self, spec: TensorSpec, shape: Sequence[int]) -> None:
        """All that a shape must be whatever the bucket."""
        axes = self._axes.get(spec.name, ("",) * len(spec.shape))
        same = len(shape) == len(spec.shape) and all(
            name or have == want for name, have, want in zip(axes, shape, spec.shape, strict=True)
        )
        if not same:
            wanted = ", ".join(name or str(extent) for name, extent in zip(axes, spec.shape, strict=True))
            raise SampleError(f"input {spec.name!r} has shape {list(shape)}; the model takes [{wanted}]")

    def _bucket_of(self, inputs: Result) -> tuple[int, dict[str, int]]:
        """The number of the sample's bucket, and the sample's extents."""
        extents: dict[str, int] = {}
        for name, array in inputs.items():
            for dimension, extent in zip(self._axes.get(name, ()), array.shape, strict=False):
                if dimension and extents.setdefault(dimension, extent) != extent:
                    raise SampleError(
                        f"input {name!r} has {extent} of {dimension!r} where another input has "
                        f"{extents[dimension]}; they have to be the same"
                    )
        for number in self._order:
            if self._buckets[number].extents == extents:
                return number, extents
        for number in self._order:
            if holds(self._buckets[number], extents):
                return number, extents
        raise SampleError(f"no bucket takes a sample of {show_extents(extents)}; {'; '.join(self._allowed())}")

    def _allowed(self) -> Iterator[str]:
        """What there is, in words."""
        yield f"the buckets are {', '.join(show_extents(self._buckets[number].extents) for number in self._order)}"
        shrinking = {name for bucket in self._buckets for name in bucket.extents if name not in bucket.exact}
        if not shrinking:
            yield "samples have to be as large as one of them"
        else:
            yield f"samples may be smaller along {', '.join(sorted(shrinking))}" + (
                "" if not any(bucket.exact for bucket in self._buckets) else " in some of them, else as large"
            )


def holds(bucket: BucketEntry, extents: Mapping[str, int]) -> bool:
    """Whether a sample of these extents can be made into one of the bucket's."""
    return all(
        0 < have <= bucket.extents[name] if name not in bucket.exact else have == bucket.extents[name]
        for name, have in extents.items()
    )


def _check_carried(array: NDArray[Any], spec: TensorSpec) -> None:
    """Raise SampleError unless an array of the carrier holds numbers of the input's own type alone."""
    assert spec.element is not None
    try:
        same = array.astype(element_dtype(spec.element)).astype(spec.dtype)
    except ModuleNotFoundError:
        raise SampleError(f"input {spec.name!r} ({spec.element}) needs the package ml_dtypes on this machine") from None
    if not np.array_equal(same, array, equal_nan=array.dtype.kind == "f"):
        raise SampleError(
            f"input {spec.name!r} holds numbers that are none of {spec.element}; "
            f"round them, or give an array of {spec.element}"
        )


def _as_the_model_has_them(specs: Sequence[TensorSpec], outputs: Result) -> Result:
    """Outputs of types that numpy lacks in arrays of the package ml_dtypes, which comes with onnx."""
    rare = {spec.name: spec.element for spec in specs if spec.element is not None}
    if not rare:
        return outputs
    try:
        return {
            name: array.astype(element_dtype(rare[name])) if name in rare else array for name, array in outputs.items()
        }
    except ModuleNotFoundError:
        named = ", ".join(f"{name!r} ({element})" for name, element in rare.items())
        raise SampleError(f"outputs {named} are of types that need the package ml_dtypes on this machine") from None


def _described(sample: object) -> str:
    return "None" if sample is None else f"a {type(sample).__name__}"


def join_steps(manifest: Manifest, steps: Sequence[Result], elements: Sequence[int], bucket: int) -> Result:
    """Inputs of one step of a bucket, that has the elements of several: `elements` of each, as a bucket took it."""
    assert manifest.open is not None
    dimension, joined = step_dimension(manifest), {}
    for spec in manifest.buckets[bucket].inputs:
        names = manifest.open.axes.get(spec.name, ())
        if dimension not in names:
            joined[spec.name] = steps[0][spec.name]  # how long the sequence is before them
            continue
        axis = names.index(dimension)
        parts = [step[spec.name].take(range(count), axis) for step, count in zip(steps, elements, strict=True)]
        whole = np.concatenate(parts, axis)
        joined[spec.name] = (
            whole if whole.shape == spec.shape else pad(whole, spec.shape, manifest.open.pads[spec.name])
        )
    return joined
