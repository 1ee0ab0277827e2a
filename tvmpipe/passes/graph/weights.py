"""Weights by what they hold: equal ones are one, in a stage, in a model and in a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAME_DIGITS = 16


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant tensor. `name` is the first hex digits of the hash of its type, shape and bytes."""

    name: str
    array: NDArray[Any]


class WeightPool:
    """Looks weights up by the Relax constants that hold them; hashes and keeps each once, however many plans use it."""

    def __init__(self) -> None:
        self._by_handle: dict[int, tuple[Any, Weight]] = {}  # with the constant, so that its handle stays its own
        self._by_name: dict[str, Weight] = {}

    def add(self, constant: Any, weight: Weight) -> None:
        """A Relax constant is known to hold this weight, so that nobody hashes it."""
        self._by_handle[constant.__chandle__()] = constant, self._by_name.setdefault(weight.name, weight)

    def named(self, name: str) -> Weight:
        """A weight that was found before."""
        return self._by_name[name]

    def find(self, constant: Any) -> Weight:
        """The weight that a Relax constant holds; its array is the constant's own memory."""
        handle = constant.__chandle__()
        if handle not in self._by_handle:
            array = np.from_dlpack(constant.value)
            key = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
            key.update(np.ascontiguousarray(array).data)
            name = key.hexdigest()[:_NAME_DIGITS]
            self._by_handle[handle] = constant, self._by_name.setdefault(name, Weight(name, array))
        return self._by_handle[handle][1]


def group_by_readers(read_by: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Weights that always travel together: names of weights in groups that the same readers use.

    `read_by` maps readers (stages) to the names of their weights. Groups, and names in them, stand in the order in
    which they are first read.
    """
    readers: dict[str, list[str]] = {}
    for reader, names in read_by.items():
        for name in names:
            readers.setdefault(name, []).append(reader)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, who in readers.items():
        groups.setdefault(tuple(who), []).append(name)
    return [tuple(names) for names in groups.values()]
