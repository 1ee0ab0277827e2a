"""How many of an image's tiles go through the transforms together, and what that means for the cost."""

from __future__ import annotations

import math

from tvmpipe.passes.kernels.tiles import BLOCK, divisors, image_tile, rows_cycles, spreads
from tvmpipe.targets.cost.kernel_costs import KernelCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import FLOAT_BYTES, Phases, RereadBytes
from tvmpipe.targets.description.cpu_model import describe_cpu
from tvmpipe.targets.description.target import TargetDescription

_CHUNK_BYTES = 1 << 20  # transformed inputs and products of a chunk: about half of a level 2 cache
_CHUNK_TILES = 24  # fewer make the matrix products wait for weights
_SHARE_BLOCKS = 4  # of results that a thread must have before it transforms all inputs for itself


def rows_together(rows: int, columns: int, tile_bytes: int, images: int, threads: int) -> int:
    """Rows of tiles in a chunk: a divisor of all of them that fits the cache and feeds the matrix products.

    Half of what feeds them best will do where every thread then has chunks of its own.
    """
    whole = divisors(rows)
    fitting = [size for size in whole if size * columns * tile_bytes <= _CHUNK_BYTES]
    fed = [size for size in whole if size * columns >= _CHUNK_TILES] or whole[-1:]
    usual = max((size for size in fed if size in fitting), default=fed[0])
    if spreads(rows // usual * images, threads):
        return usual
    own = [size for size in fitting if spreads(rows // size * images, threads) and size * columns >= _CHUNK_TILES // 2]
    return max(own, default=usual)


def chunk_shares(chunks: int, blocks: int, threads: int) -> int:
    """Parts, one a thread, that the `blocks` of results of each chunk are cut into; 1 where threads have whole chunks.

    Also 1 where the parts were so few blocks that transforming the inputs for each would cost more than it saves.
    """
    whole = spreads(chunks, threads) or blocks % threads or blocks < _SHARE_BLOCKS * threads
    return 1 if whole else threads


def winograd_phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of the loops of `schedule_winograd`."""
    cpu = describe_cpu(target, threads)
    vectors = BLOCK // cpu.lanes
    points, _, images, blocks, tall, wide, _ = work.spatial
    depth = math.prod(work.reduction)
    matrix = points * points
    chunk = rows_together(tall, wide, matrix * (depth // BLOCK + blocks) * BLOCK * FLOAT_BYTES, images, threads)
    chunks = images * -(-tall // chunk)
    pixels = chunk * wide
    rows, columns = image_tile(pixels, blocks // chunk_shares(chunks, blocks, threads), cpu)
    groups, across = blocks / columns, -(-pixels // rows)
    tiles = images * tall * wide
    inputs, results = (tiles * matrix * size * FLOAT_BYTES for size in (depth, blocks * BLOCK))
    panel = depth * columns * BLOCK * FLOAT_BYTES
    between = (inputs + results) / chunks
    reread = RereadBytes()
    reread.add(work.weight_bytes, chunks - 1, work.weight_bytes + between)
    reread.add(work.weight_bytes, chunks * (across - 1), panel + rows * depth * FLOAT_BYTES)
    # The whole image is padded before the first chunk.
    image = work.input_bytes
    reread.add(image, 1, 2 * image)
    reread.add(inputs, 1, between)
    reread.add(results, 1, between)
    reread.add(inputs, groups - 1, between / matrix + panel)
    passes = chunks * matrix * groups * depth
    products = 2.0 * tiles * matrix * depth * blocks * BLOCK
    return Phases(
        cycles=passes * rows_cycles(pixels, rows, columns * vectors) / threads,
        transform=max(work.arithmetic - products, 0.0) / threads,
        second=reread.second,
        third=reread.third,
        padded=inputs + results,
        rows=rows,
        columns=columns,
        fill=pixels / (across * rows),
        tiles=chunks * matrix * groups * across,
        chunk=between + work.weight_bytes,
    )


WINOGRAD_COST = KernelCost(winograd_phases, computes=True, biased=True)
