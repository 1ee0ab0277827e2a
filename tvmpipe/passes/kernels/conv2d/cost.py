"""What a convolution's loops mean for its cost."""

from __future__ import annotations

import math

from tvmpipe.passes.kernels.tiles import BLOCK, image_tile, rows_cycles, widening
from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import FLOAT_BYTES, Phases, RereadBytes, copied_bytes
from tvmpipe.targets.description.cpu_model import describe_cpu
from tvmpipe.targets.description.target import TargetDescription


def conv2d_phases(work: Work, target: TargetDescription, threads: int, *, of_bytes: bool = False) -> Phases:
    """The phases of the loops of `schedule_conv2d`, of floats or of bytes in fours."""
    cpu = describe_cpu(target, threads)
    vectors = BLOCK // cpu.lanes
    images, blocks, height, width, _ = work.spatial
    depth = math.prod(work.reduction)
    window = work.reduction[1:3]
    size = float(min(work.input_bytes, images * work.reduction[0] * height * width * BLOCK * FLOAT_BYTES * 4))
    if window == (1, 1) and work.input_bytes >= work.reduction[0] * height * width * BLOCK * FLOAT_BYTES:
        height, width = 1, height * width
    rows, columns = image_tile(width, blocks, cpu, work.weight_itemsize, row_vectors=of_bytes)
    groups, each = blocks / columns, widening(work.weight_itemsize, cpu)
    passes = images * height * groups
    reread = RereadBytes()
    panel = depth * columns * BLOCK * work.weight_itemsize
    across = -(-width // rows)
    reread.add(work.weight_bytes, images * height * across - 1, panel + rows * depth * FLOAT_BYTES)
    reread.add(size, window[0] - 1 if len(window) > 1 else 0, window[0] * size / height + panel)
    reread.add(size, groups - 1, size + panel)
    copies = copied_bytes(work)
    reread.add(copies, 1, 2 * copies)
    return Phases(
        cycles=passes * depth * rows_cycles(width, rows, columns * vectors, each) / threads,
        second=reread.second,
        third=reread.third,
        padded=copies,
        rows=rows,
        columns=columns,
        fill=width / (across * rows),
        tiles=passes * across,
        chunk=panel,
    )


CONV2D_COST = KernelCost(conv2d_phases, computes=True, biased=True)
