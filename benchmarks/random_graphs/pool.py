"""The values of a graph so far, and random choices among them and of new ones, special numbers included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FLOATS = ("float32", "float16", "float64")
INTEGERS = ("int64", "int32", "int8", "uint8", "int16", "uint16", "uint32", "uint64")
KINDS = {"f": FLOATS, "i": INTEGERS, "b": ("bool",)}
"""Element types by the letters that makers ask with."""

_FRESH = 0.15  # share of operands that become inputs of the graph where there is a value that fits
_EXTENTS = (1, 1, 2, 3, 4, 5, 7, 16)
_SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, -0.5, 0.5, 1.5, 2.5)


@dataclass(frozen=True)
class Value:
    """A tensor of the graph, with what it holds for the sample at hand; a new input of the graph where `name` is "".

    `exact`: it was moved about and not computed in floating point, so that two right programs hold the same bits.
    """

    name: str
    array: Array
    exact: bool = True


class Pool:
    """Chooses among the values of a graph. Where it is `wild`, new ones hold NaN, infinities, extremes, or nothing.

    `floats` is the type of most floating-point numbers of the graph.
    """

    def __init__(self, random: np.random.Generator, values: Sequence[Value], floats: str, *, wild: bool) -> None:
        self.random = random
        self.floats = floats
        self.wild = wild
        self._values = values

    def pick(
        self,
        kinds: str = "f",
        *,
        rank: Sequence[int] = (),
        exact: bool = False,
        types: Sequence[str] = (),
        empty: bool = False,
    ) -> Value:
        """A value whose type is of one of these kinds (letters of `KINDS`), or one of `types`; perhaps a new input."""
        allowed = types or [name for letter in kinds for name in KINDS[letter]]
        fitting = [
            value
            for value in self._values
            if value.array.dtype.name in allowed
            and (not rank or value.array.ndim in rank)
            and (value.exact or not exact)
            and (value.array.size or (empty and self.wild))
        ]
        if not fitting or self.flip(_FRESH):
            ranks = rank or (0, 1, 2, 2, 3, 3, 4, 4, 5)
            shape = [self.one_of(*_EXTENTS) for _ in range(self.one_of(*ranks))]
            if empty and self.wild and shape and self.flip(0.1):
                shape[self.integer(0, len(shape) - 1)] = 0
            while np.prod(shape) > 2048:
                shape[int(np.argmax(shape))] = 2
            return self.fresh(shape, self._type(allowed))
        late = len(fitting) - 1 - min(int(self.random.exponential(4.0)), len(fitting) - 1)
        return fitting[late]

    def _type(self, allowed: Sequence[str]) -> str:
        """Most often the graph's float type, or int64."""
        if self.floats in allowed and self.flip(0.7):
            return self.floats
        return str(self.one_of(*allowed))

    def fresh(self, shape: Sequence[int], dtype: Any = np.float32, *, tame: bool = False) -> Value:
        """A new input of the graph, where the node that reads it is taken."""
        return Value("", self.constant(shape, dtype, tame=tame))

    def operand(self, shape: Sequence[int], dtype: Any = np.float32, *, scale: float = 1.0) -> Value | Array:
        """A weight: most often a constant, sometimes an input; floats are finite and `scale` times as large."""
        array = self.constant(shape, dtype, tame=True)
        if array.dtype.kind == "f" and scale != 1:
            array = (array * array.dtype.type(scale)).astype(array.dtype)
        return array if self.flip(0.75) else Value("", array)

    def like(self, value: Value) -> Value | Array:
        """Another of the same type that broadcasts with it: one of the graph, a constant, or a new input."""
        shape = value.array.shape
        fitting = [
            other
            for other in self._values
            if other.array.dtype == value.array.dtype and _broadcasts(other.array.shape, shape)
        ]
        if fitting and self.flip(0.6):
            return fitting[int(self.random.integers(len(fitting)))]
        cut = self.integer(0, len(shape))
        return self.operand([extent if self.flip(0.7) else 1 for extent in shape[cut:]], value.array.dtype)

    def constant(self, shape: Sequence[int], dtype: Any = np.float32, *, tame: bool = False) -> Array:
        """Random elements: floats of a normal distribution, small integers that are not zero; special ones where the
        graph is wild and they need not be `tame`."""
        dtype = np.dtype(dtype)
        if dtype.kind == "b":
            return self.random.random(shape) < 0.5
        special: Array
        if dtype.kind == "f":
            array = self.random.standard_normal(shape).astype(dtype)
            special = np.array(_SPECIAL).astype(dtype)
        else:
            low = -5 if dtype.kind == "i" else 1
            array = np.asarray(self.random.integers(low, 6, shape))
            array = np.where(array == 0, 1, array).astype(dtype)
            special = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, 0], dtype)
        if not self.wild or tame or self.flip(0.5):
            return array
        chosen = special[self.random.integers(len(special), size=array.shape)]
        return np.asarray(np.where(self.random.random(array.shape) < 0.2, chosen, array))

    def positive(self, shape: Sequence[int], dtype: Any = np.float32) -> Array:
        """Numbers of at least a half."""
        array: Array = np.abs(self.constant(shape, dtype, tame=True)) + np.dtype(dtype).type(0.5)
        return array

    def integer(self, low: int, high: int) -> int:
        """In low..high, both included. Raises LookupError where there is none."""
        if low > high:
            raise LookupError("there is no such number")
        return int(self.random.integers(low, high + 1))

    def axis(self, value: Value) -> int:
        """Counted from either end. Raises LookupError for a scalar."""
        if not value.array.ndim:
            raise LookupError("a scalar has no axis")
        return self.integer(-value.array.ndim, value.array.ndim - 1)

    def one_of(self, *choices: Any) -> Any:
        """Any of them."""
        return choices[int(self.random.integers(len(choices)))]

    def flip(self, share: float = 0.5) -> bool:
        """True in so many of all cases."""
        return bool(self.random.random() < share)

    def number(self, low: float = -1.0, high: float = 1.0) -> float:
        """A float of a few digits, as people write them."""
        return round(float(self.random.uniform(low, high)), 2)


def _broadcasts(a: Sequence[int], b: Sequence[int]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(reversed(a), reversed(b), strict=False))
