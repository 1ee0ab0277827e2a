"""How the shapes and integers inside a model follow from the number of elements that its states have.

The model runs in ONNX Runtime with a few such numbers and otherwise the same inputs, and everything that it computes on
the way is looked at. What depends on the number does so linearly, or is nothing that can be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tvmpipe.errors import UnsupportedModelError, reason_of
from tvmpipe.passes.frontend.agreement import runnable

Array = NDArray[Any]
Sample = Mapping[str, Array]

LENGTHS = (3, 5, 8)
"""Elements that states have in the probes: none is another's double, nor an extent that models like."""

_MOST_ELEMENTS = 1 << 16
"""Integers of larger tensors are no arithmetic on shapes."""


@dataclass(frozen=True)
class Linear:
    """`base + slope * length`, element by element; integers."""

    base: Array
    slope: Array

    def at(self, length: int) -> Array:
        """The value where states have so many elements."""
        return np.asarray(self.base + self.slope * length)


@dataclass(frozen=True)
class Facts:
    """What probes show: extents of values, and integers in those whose extents do not depend on the length.

    Integers that are the same in all probes are in `same`, those that are linear in `numbers`, and others in `crooked`.
    `dtypes` are of all values.
    """

    extents: Mapping[str, Linear] = field(default_factory=dict)
    numbers: Mapping[str, Linear] = field(default_factory=dict)
    same: Mapping[str, Array] = field(default_factory=dict)
    crooked: frozenset[str] = frozenset()
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)

    def grows(self, name: str) -> bool:
        """Whether a value has an extent that follows the length."""
        return name in self.extents and bool(self.extents[name].slope.any())

    def depends(self, name: str) -> bool:
        """Whether integers in a value follow the length."""
        return name in self.numbers or name in self.crooked


def probe(model: onnx.ModelProto, samples: Sequence[Sample]) -> Facts:
    """Facts on every value of a model, from what it does with a sample for each of `LENGTHS`.

    Raises UnsupportedModelError where ONNX Runtime does not run it.
    """
    names = [name for node in model.graph.node for name in node.output if name]
    runner = runnable(model, names)
    try:
        seen = [dict(zip(names, runner.run(sample), strict=True)) for sample in samples]
    except Exception as error:  # noqa: BLE001  # its exceptions have no common base
        raise UnsupportedModelError(
            f"ONNX Runtime does not run the model step by step ({reason_of(error)}), so that nothing shows how it "
            "depends on its states' lengths; --no-state compiles it without states"
        ) from None
    extents: dict[str, Linear] = {}
    numbers: dict[str, Linear] = {}
    same: dict[str, Array] = {}
    crooked = set()
    dtypes = {name: array.dtype for name, array in seen[0].items() if isinstance(array, np.ndarray)}
    for name in names:
        arrays = [one[name] for one in seen]
        if not all(isinstance(array, np.ndarray) for array in arrays):
            continue
        if len({array.ndim for array in arrays}) > 1:
            crooked.add(name)
            continue
        shape = _linear([np.array(array.shape, np.int64) for array in arrays])
        if shape is None:
            crooked.add(name)
            continue
        extents[name] = shape
        if shape.slope.any() or arrays[0].dtype.kind not in "iu" or arrays[0].size > _MOST_ELEMENTS:
            continue
        if all(np.array_equal(array, arrays[0]) for array in arrays):
            same[name] = arrays[0]
            continue
        line = _linear([array.astype(np.int64) for array in arrays])
        if line is None:
            crooked.add(name)
        else:
            numbers[name] = line
    return Facts(extents, numbers, same, frozenset(crooked), dtypes)


def _linear(values: Sequence[Array]) -> Linear | None:
    """The line through values at `LENGTHS`; None where there is none, of whole numbers."""
    first, second, third = values
    a, b, c = LENGTHS
    slope, rest = np.divmod(second - first, b - a)
    if rest.any() or not np.array_equal(third, first + slope * (c - a)):
        return None
    return Linear(np.asarray(first - slope * a), np.asarray(slope))
