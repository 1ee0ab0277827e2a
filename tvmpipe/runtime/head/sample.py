"""What a model is given and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.errors import SampleError
from tvmpipe.manifest import Manifest

Sample = Mapping[str, NDArray[Any]]
"""Input name -> array."""

Result = dict[str, NDArray[Any]]
"""Output name -> array."""


def check_sample(manifest: Manifest, sample: Sample) -> dict[str, NDArray[Any]]:
    """The sample's arrays, dense, in the model's order and this machine's byte order; not copied where they are so.

    Raises SampleError with one sentence.
    """
    names = [spec.name for spec in manifest.model.inputs]
    if not isinstance(sample, Mapping):
        raise SampleError(
            f"a sample is a mapping of input names to arrays, not {_described(sample)}; the model takes "
            f"{', '.join(names)}"
        )
    for name in sample:
        if name not in names:
            raise SampleError(f"input {name!r} is not one of the model's; allowed: {', '.join(names)}")
    inputs = {}
    for spec in manifest.model.inputs:
        if spec.name not in sample:
            raise SampleError(f"input {spec.name!r} is missing; the model takes {', '.join(names)}")
        try:
            array = np.asarray(sample[spec.name])
        except ValueError as error:  # lists of unequal lengths, say
            raise SampleError(f"input {spec.name!r} is no array: {error}") from None
        if array.dtype.name != spec.dtype:
            raise SampleError(f"input {spec.name!r} has dtype {array.dtype.name}; the model takes {spec.dtype}")
        if array.shape != spec.shape:
            raise SampleError(f"input {spec.name!r} has shape {list(array.shape)}; the model takes {list(spec.shape)}")
        # A dtype has the same name in both byte orders.
        inputs[spec.name] = np.ascontiguousarray(array, np.dtype(spec.dtype)).reshape(spec.shape)
    return inputs


def _described(sample: object) -> str:
    return "None" if sample is None else f"a {type(sample).__name__}"
