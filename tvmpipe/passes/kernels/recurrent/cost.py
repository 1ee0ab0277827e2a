"""Which register tile a step's product has, and what a recurrent layer's loops mean for its cost."""

from __future__ import annotations

import math

from tvmpipe.passes.kernels.tiles import BLOCK, accumulation, divisors
from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import FLOAT_BYTES, Phases, RereadBytes
from tvmpipe.targets.description.cpu_model import CpuModel, describe_cpu
from tvmpipe.targets.description.target import TargetDescription

_STACK_BYTES = 1024  # from which TVM takes memory for a tile instead of the stack, and LLVM no registers


def recurrent_tile(rows: int, blocks: int, gates: int, cpu: CpuModel) -> tuple[int, int]:
    """Rows of the batch, and blocks of hidden units with all of their gates, that a register tile has; both divide.

    A single row has few sums for the latency of multiply-adds: further blocks fill the registers.
    """
    vectors = gates * BLOCK // cpu.lanes

    def cycles(tile: tuple[int, int]) -> float:
        return rows / tile[0] * blocks / tile[1] * accumulation(tile[0], tile[1] * vectors)

    fitting = [
        (height, width)
        for height in divisors(rows)
        for width in divisors(blocks)
        # A single row takes its weights from memory, and no register for them.
        if (height <= cpu.tile_rows(width * vectors) or (height == 1 and width * vectors <= cpu.registers - 4))
        and height * width * gates * BLOCK * FLOAT_BYTES < _STACK_BYTES
    ]
    return min(fitting, key=lambda tile: (cycles(tile), tile[0] * tile[1]), default=(1, 1))


def recurrent_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of the loops of `schedule_recurrent`: directions run beside each other, steps do not."""
    cpu = describe_cpu(target, threads)
    ways, rows, blocks, gates, _ = work.spatial
    steps, length = work.reduction
    tile_rows, tile_blocks = recurrent_tile(rows, blocks, gates, cpu)
    tiles = steps * rows / tile_rows * blocks / tile_blocks
    cycles = tiles * length * accumulation(tile_rows, tile_blocks * gates * BLOCK // cpu.lanes)
    marked = 2.0 * ways * steps * rows * length**2 * gates
    others = max(work.flops / marked, 1.0)  # a GRU that resets before its product has a second one
    weight_bytes = blocks * BLOCK * gates * length * work.weight_itemsize * others
    reread = RereadBytes()
    reread.add(ways * weight_bytes, steps - 1, weight_bytes)
    return Phases(
        cycles=others * cycles * math.ceil(ways / threads),
        second=reread.second,
        third=reread.third,
        rows=tile_rows,
        columns=tile_blocks * gates,
        fill=length / (blocks * BLOCK),
        tiles=others * ways * tiles,
        chunk=weight_bytes,
    )


# A step's product has few rows: its weights come from a level 2 cache at best, and steps wait for each other.
RECURRENT_COST = KernelCost(recurrent_phases, computes=True, roofline_share=0.3)
