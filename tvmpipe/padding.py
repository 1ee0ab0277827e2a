"""Samples smaller than what a model is compiled for: made larger at the ends of their axes, and results cut back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Extents = Mapping[str, int]
"""Name of an open dimension -> its extent."""


def pad(array: Array, shape: Sequence[int], value: float) -> Array:
    """`array` with `value` at the ends of its axes, so that it has `shape`, which is nowhere smaller than its own."""
    padded = np.full(shape, value, array.dtype)
    padded[tuple(slice(extent) for extent in array.shape)] = array
    return padded


def cut_back(array: Array, axes: Sequence[str], extents: Extents) -> Array:
    """`array` (whose axes have these names) without what is behind the extents of axes that are in `extents`.

    Dense; a copy where something is cut.
    """
    kept = tuple(slice(extents.get(name)) for name in axes)
    cut = array[kept]
    return array if cut.shape == array.shape else np.ascontiguousarray(cut)


def show_extents(extents: Extents) -> str:
    """In words, "batch=1 sequence=64"."""
    return " ".join(f"{name}={extent}" for name, extent in extents.items())


def open_axes(shapes: Sequence[Sequence[int]], buckets: Sequence[Extents]) -> tuple[str, ...]:
    """Names of the axes of a tensor that has these shapes in these buckets: of a dimension where it is that everywhere.

    "" for an axis that is none of them, or that is a function of them, such as every second position; no names where
    buckets differ in how many axes there are.
    """
    if len({len(shape) for shape in shapes}) > 1:
        return ()
    names = buckets[0]
    return tuple(
        next((name for name in names if all(e == bucket[name] for e, bucket in zip(axis, buckets, strict=True))), "")
        for axis in zip(*shapes, strict=True)
    )
