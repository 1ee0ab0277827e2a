"""Which register tiles attention's two products have, and what its loops mean for its cost."""

from __future__ import annotations

import math

from tvmpipe.passes.kernels.tiles import BLOCK, accumulation, product_tile
from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import FLOAT_BYTES, Phases, RereadBytes
from tvmpipe.targets.description.cpu_model import CpuModel, describe_cpu
from tvmpipe.targets.description.target import TargetDescription


def panels_beside(rows: int, cpu: CpuModel) -> int:
    """Most panels of a register tile of so many rows, at least 1."""
    panels = 1
    while cpu.tile_rows((panels + 1) * BLOCK // cpu.lanes) >= rows:
        panels += 1
    return panels


def attention_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of the loops of `schedule_attention`."""
    cpu = describe_cpu(target, threads)
    vectors = BLOCK // cpu.lanes
    *batch, m, width = work.spatial
    heads = math.prod(batch)
    rows, columns = product_tile(m, max(width // BLOCK, 1), m, cpu)
    beside = panels_beside(rows, cpu)
    down = -(-m // rows)
    score = math.ceil(m / BLOCK / beside) * accumulation(rows, beside * vectors) * width
    value = width / BLOCK / columns * accumulation(rows, columns * vectors) * m
    reread = RereadBytes()
    keys = m * width * FLOAT_BYTES
    reread.add(2.0 * heads * keys, down - 1, 2 * keys + rows * m * FLOAT_BYTES)
    return Phases(
        cycles=heads * down * (score + value) / threads,
        second=reread.second,
        third=reread.third,
        padded=2.0 * heads * keys,
        rows=rows,
        columns=columns,
        fill=m / (down * rows),
        tiles=heads * down,
        chunk=2 * keys,
    )


# The exponentials are no multiply-adds: 47 % of peak in ViT-Base beside 90 to 93 % in its matmuls (`tvmpipe bench`).
ATTENTION_COST = KernelCost(attention_phases, computes=True, operands=3, roofline_share=0.5)
