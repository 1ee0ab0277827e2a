"""The rule for every primitive: inline what is elementwise, then tile, vectorise and parallelise each block.

A reduction keeps a tile of its results in registers: `rows` unrolled rows by one or two vectors, all of the
reduction inside. An elementwise block is one vectorised loop over all its elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.kernels.inspect import PARTITION, REDUCTION, SPATIAL, reduces
from tvmpipe.passes.kernels.operations import calls, operations_of, reads_of
from tvmpipe.passes.kernels.tir_operators import NEAREST

_PARALLEL_FROM = 1 << 14  # elements below which starting threads costs more than it saves
_MAX_CHUNKS = 64  # parallel chunks of an elementwise loop
_SQUARE = 8  # side of the squares that a transpose copies at a time
_ROWS = 6  # accumulator rows: 6 x 2 vectors leave registers for operands on 16-register machines
_REPEATED = 8  # operations that a reduction may do again for each result that it adds to
_MOST_REPEATED = 1024  # operations that an elementwise block may do again for each result; a few such chains would be
# expressions that no compiler gets to the end of


def schedule_generic(schedule: Any, lanes: int) -> None:
    """Schedule every block of the function for vectors of `lanes` floats."""
    _Scheduler(schedule, lanes).run()


@dataclass
class _Scheduler:
    schedule: Any
    lanes: int

    def run(self) -> None:
        root = self.schedule.get_sblock("root")
        for block in self.schedule.get_child_blocks(root):
            self._inline(block)
        for block in self.schedule.get_child_blocks(root):
            loops = self.schedule.get_loops(block)
            kinds = [int(variable.iter_type) for variable in self.schedule.get(block).iter_vars]
            if len(kinds) != len(loops) or not all(kind in (SPATIAL, REDUCTION) for kind in kinds):
                continue  # not a plain loop nest: a sort or a scatter
            spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == SPATIAL]
            reduction = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == REDUCTION]
            if spatial and reduction:
                self._reduction(block, spatial, reduction)
            elif spatial:
                self._elementwise(block, spatial)

    def _inline(self, block: Any) -> None:
        """Compute `block` inside its readers unless that repeats costly work in a reduction."""
        import tvm

        if reduces(self.schedule, block):
            return
        consumers = self.schedule.get_consumers(block)
        if not consumers:
            return
        operations = operations_of(self.schedule.get(block).body)
        if any(reduces(self.schedule, consumer) for consumer in consumers) and (
            operations.costly_calls or operations.arithmetic > _REPEATED
        ):
            return
        written = [region.source for region in self.schedule.get(block).writes]
        reads = max(reads_of(self.schedule.get(one).body, buffer) for one in consumers for buffer in written)
        if operations.arithmetic * (reads - 1) > _MOST_REPEATED:
            return
        try:
            self.schedule.compute_inline(block)
        except tvm.s_tir.ScheduleError:
            return  # it writes a part of its buffer, or is read as a whole: leave it a loop of its own

    def _extent(self, loop: Any) -> int:
        return int(self.schedule.get(loop).extent)

    def _elementwise(self, block: Any, spatial: list[Any]) -> None:
        extents = [self._extent(loop) for loop in spatial]
        contiguous = self._contiguous(block, len(spatial))
        if contiguous is not None and contiguous != len(spatial) - 1:
            self._transpose(spatial, contiguous)
        elif len(spatial) > 1 and (extents[-1] % self.lanes == 0 or extents[-1] >= 4 * self.lanes):
            # The last axis by itself: no division finds the place of each vector in the others.
            *outer, middle, last = spatial
            vectors, lane = self.schedule.split(last, [None, self.lanes])
            self.schedule.vectorize(lane)
            if extents[-1] % self.lanes and calls(self.schedule.get(block).body, NEAREST):
                # Without it each number has a branch. Measured of what rounds; what does not is as it was measured.
                self.schedule.annotate(vectors, PARTITION, 1)
            if math.prod(extents) >= _PARALLEL_FROM:
                rows = self.schedule.fuse(*(outer if math.prod(extents[:-2]) > 1 else (*outer, middle)))
                self.schedule.parallel(rows)
        else:
            self._flat(spatial)

    def _contiguous(self, block: Any, rank: int) -> int | None:
        """The axis of the result along which what the block reads most lies next to each other, if one is known."""
        import tvm.sym

        variables = [variable.var for variable in self.schedule.get(block).iter_vars]
        size = [int(variable.dom.extent) for variable in self.schedule.get(block).iter_vars]
        analyzer = tvm.sym.Analyzer()  # a reshape's remainders are none within the extents
        for variable in self.schedule.get(block).iter_vars:
            analyzer.bind(variable.var, variable.dom)
        for region in self.schedule.get(block).reads:
            extents = [int(extent) for extent in region.source.shape]
            if not extents or math.prod(extents) * 2 <= math.prod(size):
                continue  # something small that is broadcast, or one number without axes
            coefficients = tvm.sym.detect_linear_equation(analyzer.simplify(region.region[-1].min), variables)
            if len(coefficients) != rank + 1:
                return None
            ones = [i for i in range(rank) if size[i] > 1 and str(coefficients[i]) in ("1", "T.int64(1)")]
            return ones[-1] if ones else None
        return None

    def _transpose(self, spatial: list[Any], contiguous: int) -> None:
        """Squares: their reads and writes both stay in the first level cache, even if each line is a page apart.

        Reads are vectors and writes scattered; the other way round takes 1.3 to 1.5 times as long.
        """
        ragged = self._extent(spatial[-1]) % _SQUARE
        row_outer, row = self.schedule.split(spatial[contiguous], [None, _SQUARE])
        column_outer, column = self.schedule.split(spatial[-1], [None, _SQUARE])
        others = [loop for place, loop in enumerate(spatial[:-1]) if place != contiguous]
        self.schedule.reorder(*others, row_outer, column_outer, column, row)
        if ragged:
            self.schedule.annotate(column_outer, PARTITION, 1)
        self.schedule.vectorize(row)
        self.schedule.parallel(self.schedule.fuse(*others, row_outer))

    def _flat(self, spatial: list[Any]) -> None:
        loop = self.schedule.fuse(*spatial)
        size = self._extent(loop)
        width = _largest_divisor(size, self.lanes)
        outer, inner = self.schedule.split(loop, [None, width])
        if size >= _PARALLEL_FROM:
            chunk, _ = self.schedule.split(outer, [_largest_divisor(size // width, _MAX_CHUNKS), None])
            self.schedule.parallel(chunk)
        if width > 1:
            self.schedule.vectorize(inner)

    def _reduction(self, block: Any, spatial: list[Any], reduction: list[Any]) -> None:
        schedule = self.schedule
        extents = [self._extent(loop) for loop in spatial]
        vector = max((i for i, extent in enumerate(extents) if extent > 1), default=len(spatial) - 1)
        width = self._width(extents[vector])
        others = [i for i in range(len(spatial)) if i != vector and extents[i] > 1]
        # The axis with the most rows gives the most reuse of what the vector axis loads; 64 are enough.
        row = max(others, key=lambda i: (min(extents[i], 64), -i), default=None)

        result = schedule.cache_write(block, 0, "local")
        outer = [spatial[i] for i in range(len(spatial)) if i not in (vector, row)]
        vector_outer, vector_inner = schedule.split(spatial[vector], [None, width])
        if row is None:
            schedule.reorder(*outer, vector_outer, *reduction, vector_inner)
        else:
            rows = _largest_divisor(extents[row], _ROWS)
            if rows < 3 and extents[row] > _ROWS:
                rows = 4
            row_outer, row_inner = schedule.split(spatial[row], [None, rows])
            outer.append(row_outer)
            schedule.reorder(*outer, vector_outer, *reduction, row_inner, vector_inner)
            schedule.unroll(row_inner)
        schedule.reverse_compute_at(result, vector_outer)
        if outer:
            schedule.parallel(schedule.fuse(*outer))
        if width > self.lanes:
            unrolled, vector_inner = schedule.split(vector_inner, [None, self.lanes])
            schedule.unroll(unrolled)
        if width > 1:
            schedule.vectorize(vector_inner)
        store = schedule.get_loops(result)[-1]
        if 1 < self._extent(store) <= 2 * self.lanes:
            schedule.vectorize(store)

    def _width(self, extent: int) -> int:
        """Elements of the innermost axis that are computed together: two vectors, one, or a part of one."""
        for width in (2 * self.lanes, self.lanes):
            if extent % width == 0:
                return width
        width = _largest_divisor(extent, self.lanes)
        # A prime extent has no useful divisor; whole vectors with a peeled tail then.
        return self.lanes if width < self.lanes // 2 and extent > self.lanes else width


def _largest_divisor(size: int, limit: int) -> int:
    return max(divisor for divisor in range(1, min(limit, size) + 1) if size % divisor == 0)
