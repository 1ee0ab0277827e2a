"""How a product's loops are cut besides its register tile, and what they mean for its cost."""

from __future__ import annotations

import math

from tvmpipe.passes.kernels.tiles import BLOCK, divisors, product_tile, rows_cycles, spreads, widening
from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import FLOAT_BYTES, Phases, RereadBytes, copied_bytes
from tvmpipe.targets.description.cpu_model import CpuModel, describe_cpu
from tvmpipe.targets.description.target import TargetDescription

_GROUP_BYTES = 512 << 10  # right-hand sides of a group: what a level 2 cache keeps while all rows go by
_LONG = 2048  # steps of a reduction from which it is cut
_STEP = 256  # of them at a time
_STEP_GROUP_BYTES = 256 << 10  # the same where a slice of the left-hand side and the results stay as well


def uses_row_vectors(k: int, cpu: CpuModel) -> bool:
    """Whether a product of length `k` loads each row's numbers four at a time, and multiplies by elements of them."""
    return cpu.by_element and k > cpu.lanes and k % cpu.lanes == 0


def product_step(m: int, k: int, cpu: CpuModel) -> int:
    """How much of a product's length `k` all `m` rows go through before the next; `k` where it is not cut.

    Measured on a Xeon with AVX-512: 5 to 15 % less time for 4096, 2 to 5 % for 3072, none for 1024. Narrower vectors
    ask for half as many bytes in a cycle and lose 1 to 4 %.
    """
    return _STEP if cpu.lanes == BLOCK and k >= _LONG and k % _STEP == 0 and m >= 2 * BLOCK else k


def tiles_together(tiles: int, tile_bytes: int, threads: int) -> int:
    """Tiles of columns in a group: a divisor of all that fits the cache and gives every thread as many groups."""
    return _together(tiles, tile_bytes, threads, _GROUP_BYTES)


def step_tiles_together(tiles: int, tile_bytes: int, threads: int) -> int:
    """The same of a product that is cut by `product_step`; `tile_bytes` are of one step."""
    return _together(tiles, tile_bytes, threads, _STEP_GROUP_BYTES)


def _together(tiles: int, tile_bytes: int, threads: int, most_bytes: int) -> int:
    fitting = [size for size in divisors(tiles) if size * tile_bytes <= most_bytes] or [1]
    return max([size for size in fitting if spreads(tiles // size, threads)] or [1])


def matmul_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of the loops of `schedule_matmul`."""
    cpu = describe_cpu(target, threads)
    vectors = BLOCK // cpu.lanes
    *batch, m, n = work.spatial
    heads = math.prod(batch)
    several = heads > 1  # whose rows do not lie apart evenly
    if work.weight_bytes or not work.input_bytes:
        m, heads = m * heads, 1
    depth = math.prod(work.reduction)
    blocks = max(n // BLOCK, 1)
    ragged = heads > 1 and heads >= threads
    step = depth if heads > 1 else product_step(m, depth, cpu)
    row_vectors = uses_row_vectors(depth, cpu) and (heads > 1 or not several)
    rows, columns = product_tile(
        m,
        blocks,
        step,
        cpu,
        apart=depth,
        ragged_panels=ragged,
        row_vectors=row_vectors,
        itemsize=work.weight_itemsize,
    )
    panel = columns * BLOCK * step * work.weight_itemsize
    across, down = math.ceil(blocks / columns), math.ceil(m / rows)
    grouped = tiles_together if step == depth else step_tiles_together
    together = across if ragged else grouped(max(across, 1), panel, threads)
    last = blocks % columns
    per_depth = 0.0
    for width, times in ((columns, blocks // columns), (last, 1 if last else 0)):
        per_depth += times * rows_cycles(m, rows, width * vectors, widening(work.weight_itemsize, cpu))
    reread = RereadBytes()
    left_bytes, right_bytes = m * depth * FLOAT_BYTES, blocks * BLOCK * depth * work.weight_itemsize
    steps = depth / step
    results_bytes = m * columns * BLOCK * together * FLOAT_BYTES  # of a group
    reread.add(heads * right_bytes, down - 1, panel * together + rows * step * FLOAT_BYTES)
    reread.add(heads * left_bytes, across / together - 1, left_bytes + panel * together * steps)
    reread.add(heads * left_bytes, across * (1 - 1 / together), rows * step * FLOAT_BYTES + panel)
    reread.add(results_bytes * across / together, steps - 1, results_bytes + left_bytes / steps + panel * together)
    return Phases(
        cycles=heads * depth * per_depth / threads,
        second=reread.second,
        third=reread.third,
        padded=copied_bytes(work),
        rows=rows,
        columns=columns,
        fill=m * blocks / (down * rows * across * columns),
        tiles=heads * across * down,
        chunk=panel * together,
    )


MATMUL_COST = KernelCost(matmul_phases, computes=True, biased=True)
