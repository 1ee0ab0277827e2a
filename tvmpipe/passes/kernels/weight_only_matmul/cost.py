"""Which register tiles a product with a packed weight has, and what its loops mean for its cost."""

from __future__ import annotations

import math

from tvmpipe.passes.kernels.matmul.cost import step_tiles_together
from tvmpipe.passes.kernels.tiles import BLOCK, accumulation, divisors, product_tile, rows_cycles, spreads
from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import FLOAT_BYTES, Phases, RereadBytes, copied_bytes
from tvmpipe.targets.description.cpu_model import CpuModel, describe_cpu
from tvmpipe.targets.description.target import TargetDescription

_MOST_VECTORS = 4  # of a row of the tile: enough sums for the latency of multiply-adds that wait for unpacking
_SPARE_REGISTERS = 5  # for a number of a row, masks, and vectors of numbers on their way
_STEP = 256  # rows of a weight that are made real at a time


def few_rows_tile(rows: int, panels: int, cpu: CpuModel) -> tuple[int, int]:
    """Rows and panels of the register tile for few rows; both divide.

    Sums and a vector of words for each of a row's vectors stay in registers. All rows go with each number that is
    unpacked, where that is possible; a single row has few sums for the latency of multiply-adds, so that it takes
    several panels. Every thread has its tiles.
    """
    vectors = BLOCK // cpu.lanes
    widths = [width for width in range(_MOST_VECTORS // vectors, 0, -1) if panels % width == 0]
    for height in reversed(divisors(rows)):
        for width in widths:
            fits = (height + 1) * width * vectors + _SPARE_REGISTERS <= cpu.registers
            if fits and (width == 1 or spreads(panels // width, cpu.threads)):
                return height, width
    return 1, 1


def unpacking(cpu: CpuModel) -> float:
    """Cycles that a vector of numbers takes for a mask and a conversion; SSE copies what it masks as well."""
    return 1.5 if cpu.lanes == 4 and not cpu.by_element else 0.75


def storing(cpu: CpuModel) -> float:
    """Cycles of a vector that is made real and stored: a shift, a mask, a conversion, zero point, scale and store."""
    return unpacking(cpu) + 1.5


def weight_step(length: int) -> int:
    """How many of a weight's `length` rows are made real at a time: whole words, which have up to 16 rows."""
    words = math.gcd(length, BLOCK)
    return max((size for size in divisors(length) if size % words == 0 and size <= _STEP), default=words)


def weight_only_matmul_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of the loops of `schedule_weight_only_matmul`."""
    cpu = describe_cpu(target, threads)
    if len(work.reduction) == 2:
        *rows, columns, runs = work.spatial
        return _of_few_rows(work, cpu, math.prod(rows), columns // BLOCK, runs)
    *rows, columns = work.spatial
    return _of_many_rows(work, cpu, math.prod(rows), columns // BLOCK)


def _of_few_rows(work: Work, cpu: CpuModel, m: int, panels: int, runs: int) -> Phases:
    height, width = few_rows_tile(m, panels, cpu)
    vectors = width * BLOCK // cpu.lanes
    across, depth = panels // width, math.prod(work.reduction)
    tiles = float(m // height * across * runs)
    left_bytes, panel_bytes = m * runs * depth * FLOAT_BYTES, work.weight_bytes / across
    reread = RereadBytes()
    reread.add(left_bytes, across - 1, left_bytes + panel_bytes)
    reread.add(work.weight_bytes, m // height - 1, panel_bytes)
    return Phases(
        cycles=tiles * depth * (accumulation(height, vectors) + vectors * unpacking(cpu)) / cpu.threads,
        second=reread.second,
        third=reread.third,
        padded=copied_bytes(work),
        rows=height,
        columns=width,
        tiles=tiles,
        chunk=panel_bytes,
    )


def _of_many_rows(work: Work, cpu: CpuModel, m: int, panels: int) -> Phases:
    (length,) = work.reduction
    step = weight_step(length)
    rows, columns = product_tile(m, panels, step, cpu, apart=length)
    vectors, tile_bytes = columns * BLOCK // cpu.lanes, columns * BLOCK * step * FLOAT_BYTES
    across, down = panels // columns, -(-m // rows)
    together = step_tiles_together(across, tile_bytes, cpu.threads)
    left_bytes, group_bytes = m * length * FLOAT_BYTES, tile_bytes * together
    results_bytes = m * columns * BLOCK * together * FLOAT_BYTES  # of a group
    steps = length / step
    reread = RereadBytes()
    reread.add(panels * BLOCK * length * FLOAT_BYTES, down, group_bytes + rows * step * FLOAT_BYTES)
    reread.add(left_bytes, across / together - 1, left_bytes + group_bytes * steps)
    reread.add(results_bytes * across / together, steps - 1, results_bytes + left_bytes / steps + group_bytes)
    multiplied = across * length * rows_cycles(m, rows, vectors)
    unpacked = panels * BLOCK // cpu.lanes * length * storing(cpu)
    return Phases(
        cycles=(multiplied + unpacked) / cpu.threads,
        second=reread.second,
        third=reread.third,
        padded=copied_bytes(work),
        rows=rows,
        columns=columns,
        fill=m / (down * rows),
        tiles=across * down,
        chunk=group_bytes,
    )


WEIGHT_ONLY_MATMUL_COST = KernelCost(weight_only_matmul_phases, computes=True, biased=True)
