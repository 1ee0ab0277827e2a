"""What schedules make of a primitive: tiles, ragged edges, what is read again, and Winograd's chunks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.targets.cost.synthetic import matmul
from tvmpipe.targets.cost.kernel_costs import phases
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import SECOND_BYTES, far_share
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.target import TargetDescription

V2, V3, V4 = (find_target(name) for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4"))


def conv(channels: int, side: int, window: int, outside: int) -> Work:
    """A convolution from and to blocks of 16 channels, with stride one, padding done by a copy where it is needed."""
    image = 4 * channels * side * side
    padded = 4 * channels * (side + window - 1) ** 2 if window > 1 else 0
    results = 4 * outside * side * side
    return Work(
        flops=2.0 * channels * outside * window**2 * side**2,
        input_bytes=image,
        weight_bytes=4 * channels * outside * window**2,
        output_bytes=results,
        operators=("conv2d",),
        kernel="conv2d",
        spatial=(1, outside // 16, side, side, 16),
        reduction=(channels // 16, window, window, 16),
        arithmetic=2.0 * channels * outside * window**2 * side**2,
        inner_bytes=results + padded,
    )


def winograd(channels: int, tiles: int, points: int) -> Work:
    """`tiles` squared tiles of an image with as many channels out as in."""
    side = tiles * (points - 2)
    products = 2.0 * points**2 * tiles**2 * channels**2
    return Work(
        flops=2.0 * 9 * channels**2 * side**2,
        input_bytes=4 * channels * side**2,
        weight_bytes=4 * points**2 * channels**2,
        output_bytes=4 * channels * side**2,
        operators=("winograd_conv2d",),
        kernel="winograd",
        spatial=(points, points, 1, channels // 16, tiles, tiles, 16),
        reduction=(channels // 16, 16),
        arithmetic=products + 1e6,
        inner_bytes=12 * channels * side**2,
    )


@pytest.mark.parametrize("target", [V2, V3, V4])
@pytest.mark.parametrize(
    "work", [matmul(128, 768, 768), conv(64, 56, 3, 64), conv(256, 14, 1, 128), winograd(128, 7, 4)]
)
def test_no_tile_is_faster_than_two_multiplications_a_cycle(work: Work, target: TargetDescription) -> None:
    found = phases(work, target, 1)
    products = work.arithmetic - found.transform
    assert found.cycles >= 0.999 * products / (2 * 2 * target.vector_bits / 32)
    assert 0 < found.fill <= 1
    assert found.rows >= 1
    assert found.columns >= 1


def test_the_tile_at_an_edge_is_smaller() -> None:
    even, ragged = (phases(conv(64, side, 3, 64), V4, 1) for side in (14, 15))
    assert even.fill == 1
    assert ragged.fill == 15 / 16  # 15 pixels in tiles of 8
    assert ragged.cycles / even.cycles == pytest.approx(15**2 / 14**2)


def test_a_step_takes_as_long_as_a_multiplication() -> None:
    assert phases(matmul(1, 512, 16), V4, 1).cycles == 4 * 512


def test_small_weights_stay_in_the_first_cache() -> None:
    small, large = phases(conv(16, 14, 1, 16), V4, 1), phases(conv(512, 14, 1, 16), V4, 1)
    assert small.second == 0
    assert large.second >= conv(512, 14, 1, 16).weight_bytes


def test_padding_is_a_copy_and_a_large_one_is_read_from_afar() -> None:
    assert phases(conv(64, 14, 1, 64), V3, 1).padded == 0
    small, large = conv(64, 14, 3, 64), conv(64, 112, 3, 64)
    assert phases(small, V3, 1).padded == 4 * 64 * 16**2
    assert phases(small, V3, 1).third == 0
    assert phases(large, V3, 1).third >= 4 * 64 * 114**2


def test_winograd_reads_large_weights_once_a_chunk() -> None:
    few, many = winograd(256, 7, 6), winograd(256, 14, 6)
    assert few.weight_bytes == many.weight_bytes > SECOND_BYTES
    extra = phases(many, V4, 1).third - phases(few, V4, 1).third
    assert extra >= many.weight_bytes
    assert phases(many, V4, 1).transform == pytest.approx(1e6)


def test_a_long_product_reads_its_slices_from_the_second_cache() -> None:
    """Cut into steps, nothing but the left-hand side comes from beyond, once for each group of columns."""
    long, wide = phases(matmul(197, 4096, 1024), V4, 1), phases(matmul(197, 4096, 1024), V3, 1)
    left_bytes = 4 * 197 * 4096
    assert 0 < long.third <= 3 * left_bytes
    assert wide.third > 10 * left_bytes
    assert long.second > 4 * 197 * 1024  # the results, again with each step


def test_threads_share_the_cycles() -> None:
    work = matmul(256, 256, 1024)
    assert phases(work, V3, 2).cycles == pytest.approx(phases(work, V3, 1).cycles / 2, rel=0.1)


def test_more_rows_take_more_cycles() -> None:
    cycles = [phases(matmul(rows, 512, 512), V3, 1).cycles for rows in (1, 7, 64, 300)]
    assert cycles == sorted(cycles)
    assert cycles[0] > 0


def test_what_is_no_kernel_only_copies() -> None:
    work = Work(1.0, 400, 0, 400, ("relu",), inner_bytes=400)
    found = phases(work, V3, 1)
    assert (found.cycles, found.padded, found.fill) == (0, 0, 1)
    assert phases(replace(work, inner_bytes=1000), V3, 1).padded == 600


def test_a_cache_holds_what_is_small_and_nothing_of_what_is_large() -> None:
    shares = [far_share(size) for size in (0, SECOND_BYTES, 2 * SECOND_BYTES, 3 * SECOND_BYTES, math.inf)]
    assert shares == [0, 0, 0.5, 1, 1]
