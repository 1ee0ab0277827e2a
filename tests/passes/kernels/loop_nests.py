"""The loops around the blocks of a scheduled TIR function, read off the function itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.kernels.base import KERNEL_ATTR
from tvmpipe.passes.kernels.inspect import REDUCTION

VECTORIZED = 2  # value of tir.ForKind


@dataclass(frozen=True)
class Loop:
    """A loop: its trip count, which axes of the block it moves along, whether one of them is summed over."""

    extent: int
    axes: frozenset[int]
    reduces: bool
    kind: int


@dataclass(frozen=True)
class LoopNest:
    """The loops around a block that adds up, outermost first, and the extents of the block's axes.

    What lies inside the innermost loop of the sum is the register tile. `empty` is the share of tiles that lie beyond
    the axes and of which nothing is computed: loops that threads share are cut into equal parts.
    """

    mark: str
    loops: tuple[Loop, ...]
    domain: tuple[int, ...]
    reduced: frozenset[int]
    empty: float

    @property
    def _inside(self) -> int:
        return max(place for place, loop in enumerate(self.loops) if loop.reduces) + 1

    @property
    def tile(self) -> tuple[Loop, ...]:
        """The loops of the register tile."""
        return self.loops[self._inside :]

    def tile_size(self, columns: Collection[int]) -> tuple[int, int]:
        """Rows of the register tile, and numbers in a row, which lie along the axes `columns`."""
        across = [loop for loop in self.tile if loop.axes & set(columns)]
        down = [loop for loop in self.tile if not loop.axes & set(columns)]
        return _size(down), _size(across)

    @property
    def tiles(self) -> int:
        """How many register tiles there are."""
        return round(_size(loop for loop in self.loops[: self._inside] if not loop.reduces) * (1 - self.empty))

    @property
    def depth(self) -> int:
        """Additions to each number."""
        return _size(loop for loop in self.loops if loop.reduces)

    @property
    def steps(self) -> int:
        """Pieces that the sum is cut into: all tiles go through one before the next."""
        last = max((place for place, loop in enumerate(self.loops[: self._inside]) if not loop.reduces), default=0)
        return _size(loop for loop in self.loops[:last] if loop.reduces)

    @property
    def fill(self) -> float:
        """Which share of the tiles' results is wanted."""
        wanted = math.prod(extent for axis, extent in enumerate(self.domain) if axis not in self.reduced)
        return wanted / (self.tiles * _size(self.tile))

    @property
    def lanes(self) -> int:
        """Numbers that are computed together."""
        return _size(loop for loop in self.loops if loop.kind == VECTORIZED)

    def between_rows(self, columns: Collection[int]) -> int:
        """Numbers of a row of the result that are computed before the next tile of rows."""
        rows = [
            place
            for place, loop in enumerate(self.loops[: self._inside])
            if loop.axes and not loop.reduces and not loop.axes & set(columns) and loop.extent > 1
        ]
        after = self.loops[(rows[-1] if rows else -1) + 1 :]
        return _size(loop for loop in after if loop.axes & set(columns))


def sums(function: Any) -> dict[str, LoopNest]:
    """The nests of a scheduled function's sums that carry a kernel's mark, by the mark."""
    return {nest.mark: nest for nest in _nests(function.body, ()) if nest.mark}


def allocated_bytes(function: Any) -> int:
    """Bytes of everything that a scheduled function computes besides its results."""
    return sum(4 * math.prod(map(int, buffer.shape)) for buffer in function.body.block.alloc_buffers)


def _nests(statement: Any, around: tuple[Any, ...]) -> Iterator[LoopNest]:
    kind = type(statement).__name__
    if kind == "For":
        yield from _nests(statement.body, (*around, statement))
    elif kind == "SeqStmt":
        for one in statement.seq:
            yield from _nests(one, around)
    elif kind == "SBlockRealize":
        block = statement.block
        reduced = frozenset(axis for axis, v in enumerate(block.iter_vars) if int(v.iter_type) == REDUCTION)
        if reduced:
            yield _nest(statement, around, reduced)
        yield from _nests(block.body, around)


def _nest(realize: Any, around: tuple[Any, ...], reduced: frozenset[int]) -> LoopNest:
    from tvm_ffi import structural_walk

    used: list[list[Any]] = []
    for value in realize.iter_values:
        found: list[Any] = []
        structural_walk(value, found.append)
        used.append([node for node in found if type(node).__name__ == "Var"])
    loops = []
    for loop in around:
        axes = frozenset(axis for axis, found in enumerate(used) if any(loop.loop_var.same_as(v) for v in found))
        loops.append(Loop(int(loop.extent), axes, bool(axes & reduced), int(loop.kind)))
    domain = tuple(int(variable.dom.extent) for variable in realize.block.iter_vars)
    mark = str((realize.block.annotations or {}).get(KERNEL_ATTR, ""))
    inside = max(place for place, loop in enumerate(loops) if loop.reduces) + 1
    return LoopNest(mark, tuple(loops), domain, reduced, _empty(realize.predicate, around, inside))


def _empty(predicate: Any, around: tuple[Any, ...], inside: int) -> float:
    """The share of choices of the loops before `inside` for which the predicate says no to the first number."""
    import tvm.sym
    from tvm import tirx
    from tvm_ffi import structural_walk

    found: list[Any] = []
    structural_walk(predicate, found.append)
    outer = [loop for loop in around[:inside] if any(loop.loop_var.same_as(node) for node in found)]
    refused = 0
    for choice in itertools.product(*(range(int(loop.extent)) for loop in outer)):
        analyzer = tvm.sym.Analyzer()
        for loop, value in [*zip(outer, choice, strict=True), *((loop, 0) for loop in around[inside:])]:
            analyzer.bind(loop.loop_var, tirx.const(value, str(loop.extent.ty.dtype)))
        refused += not bool(analyzer.simplify(predicate))
    return refused / math.prod(int(loop.extent) for loop in outer)


def _size(loops: Any) -> int:
    return math.prod(loop.extent for loop in loops)
