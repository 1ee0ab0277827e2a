"""Convolutions, pooling, and what else looks at an image through a window."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.random_graphs.pool import Pool, Value
from benchmarks.random_graphs.proposal import Proposal, makes, node


def window(pool: Pool, rank: int, *, dilated: bool = True) -> tuple[list[int], dict[str, Any]]:
    """Extents of a kernel, and how it moves: strides, dilations and padding, each left out at times."""
    kernel = [pool.integer(1, 3) for _ in range(rank)]
    attributes: dict[str, Any] = {}
    if pool.flip(0.7):
        attributes["strides"] = [pool.integer(1, 3) for _ in kernel]
    if dilated and pool.flip(0.4):
        attributes["dilations"] = [pool.one_of(1, 1, 2) for _ in kernel]
    if pool.flip(0.3):
        attributes["auto_pad"] = pool.one_of("SAME_UPPER", "SAME_LOWER", "VALID")
    elif pool.flip(0.8):
        attributes["pads"] = [pool.integer(0, kernel[at % rank] - 1) for at in range(2 * rank)]
    return kernel, attributes


def image(pool: Pool, rank: int, dtype: Any = None) -> Value:
    """A value of the graph with so many axes behind batch and channels, or a new one."""
    if dtype is None and pool.flip():
        found = pool.pick(rank=(rank + 2,))
        if not np.isfinite(found.array).all():
            raise LookupError("a product with the zeros around it is NaN or not, as the kernel likes")
        return found
    shape = [pool.integer(1, 2), pool.one_of(1, 2, 3, 4, 6, 8, 16), *(pool.integer(1, 9) for _ in range(rank))]
    return pool.fresh(shape, dtype or pool.floats, tame=True)


@makes("Conv")
def convolution(pool: Pool, operator: str) -> Proposal:
    rank = pool.one_of(1, 2, 2, 2, 3)
    x = image(pool, rank)
    channels, dtype = x.array.shape[1], x.array.dtype
    groups = pool.one_of(1, 1, channels, *[2] * (channels % 2 == 0))
    outputs = groups * pool.one_of(1, 2, 3, 8, 16)
    kernel, attributes = window(pool, rank)
    weight = pool.operand([outputs, channels // groups, *kernel], dtype)
    bias = pool.one_of(None, pool.operand([outputs], dtype))
    return node(operator, [x, weight, bias], {"group": groups, **attributes})


@makes("ConvTranspose")
def transposed(pool: Pool, operator: str) -> Proposal:
    rank = pool.one_of(1, 2, 2, 3)
    x = image(pool, rank)
    channels, dtype = x.array.shape[1], x.array.dtype
    groups = pool.one_of(1, 1, channels)
    kernel, attributes = window(pool, rank)
    if "strides" in attributes and "auto_pad" not in attributes and pool.flip(0.4):
        attributes["output_padding"] = [pool.integer(0, stride - 1) for stride in attributes["strides"]]
    outputs = pool.integer(1, 4)
    weight = pool.operand([channels, outputs, *kernel], dtype)
    bias = pool.one_of(None, pool.operand([groups * outputs], dtype))
    return node(operator, [x, weight, bias], {"group": groups, **attributes})


@makes("DeformConv")
def deformable(pool: Pool, operator: str) -> Proposal:
    groups, offset_groups = pool.integer(1, 2), pool.integer(1, 2)
    channels, kernel = 2 * pool.integer(1, 2), [pool.integer(1, 3), pool.integer(1, 3)]
    height, width = (extent + pool.integer(1, 3) for extent in kernel)
    x = pool.fresh([1, channels, height, width], np.float32)
    weight = pool.operand([2 * groups, channels // groups, *kernel])
    out = [height - kernel[0] + 1, width - kernel[1] + 1]
    places = offset_groups * kernel[0] * kernel[1]
    offset = pool.fresh([1, 2 * places, *out], np.float32, tame=True)
    mask = pool.one_of(None, pool.fresh([1, places, *out], np.float32))
    attributes = {"group": groups, "offset_group": offset_groups, "kernel_shape": kernel}
    return node(operator, [x, weight, offset, pool.one_of(None, pool.operand([2 * groups])), mask], attributes)


@makes("MaxPool", "AveragePool", "LpPool")
def pooling(pool: Pool, operator: str) -> Proposal:
    rank = pool.one_of(1, 2, 2, 3)
    x = image(pool, rank)
    kernel, attributes = window(pool, rank)
    attributes["kernel_shape"] = kernel
    if "auto_pad" not in attributes:
        attributes["ceil_mode"] = pool.integer(0, 1)
    if operator == "MaxPool":
        if pool.flip(0.3):
            x = pool.pick(rank=(rank + 2,), exact=True, types=("float32", "int8", "uint8", "float64"))
            attributes["storage_order"] = pool.integer(0, 1)
            return node(operator, [x], attributes, outputs=2, moves=True, steps=True)
        return node(operator, [x], attributes, moves=True)
    if operator == "LpPool":
        if "auto_pad" in attributes:
            attributes.pop("dilations", None)  # ONNX Runtime counts its results as if there were none
        return node(operator, [x], {**attributes, "p": pool.integer(1, 3)})
    return node(operator, [x], {**attributes, "count_include_pad": pool.integer(0, 1)})


@makes("MaxUnpool")
def unpool(pool: Pool, operator: str) -> Proposal:
    shape = [1, pool.integer(1, 3), pool.integer(1, 3), pool.integer(1, 3)]
    whole = [1, shape[1], 2 * shape[2], 2 * shape[3]]
    count = int(np.prod(shape))
    indices = pool.random.choice(int(np.prod(whole)), count, replace=False).reshape(shape).astype(np.int64)
    x = pool.fresh(shape, np.float32)
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return node(operator, [x, pool.one_of(indices, Value("", indices))], attributes, moves=True)


@makes("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(rank=(3, 4, 5))
    attributes = {"p": pool.integer(1, 3)} if operator == "GlobalLpPool" else {}
    return node(operator, [x], attributes, moves=operator == "GlobalMaxPool")


@makes("Resize")
def resize(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("float32", "float32", "uint8", "int8", "float16"), rank=(3, 4), exact=True)
    if not np.isfinite(x.array).all():
        raise LookupError("infinity by a weight of zero is NaN or not, as the kernel likes")
    rank = x.array.ndim - 2
    mode = pool.one_of("nearest", "linear", "cubic" if rank == 2 else "linear")
    by = [pool.one_of(0.5, 2.0, 1.5, 3.0, 1.0, 0.7) for _ in range(rank)]
    scales = np.array([1, 1, *by], np.float32)
    attributes: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": pool.one_of(
            "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"
        ),
    }
    if mode == "nearest":
        attributes["nearest_mode"] = pool.one_of("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    elif pool.flip(0.3):
        attributes["antialias"] = 1
    if mode == "cubic" and pool.flip():
        attributes["cubic_coeff_a"], attributes["exclude_outside"] = pool.number(-0.8, -0.4), pool.integer(0, 1)
    if pool.flip():
        sizes = np.array([*x.array.shape[:2], *(pool.integer(1, 9) for _ in range(rank))])
        return node(operator, [x, None, None, sizes], attributes, steps=True, last=x.array.dtype.kind in "iu")
    return node(operator, [x, None, scales], attributes, steps=True, last=x.array.dtype.kind in "iu")


@makes("RoiAlign", "MaxRoiPool")
def regions(pool: Pool, operator: str) -> Proposal:
    x = pool.fresh([2, pool.integer(1, 3), pool.integer(4, 8), pool.integer(4, 8)], np.float32, tame=True)
    count = pool.integer(1, 3)
    corner = pool.random.uniform(0, 3, (count, 2))
    boxes = np.concatenate([corner, corner + pool.random.uniform(0.5, 5, (count, 2))], 1).astype(np.float32)
    batch = pool.random.integers(0, 2, count)
    if operator == "MaxRoiPool":
        rows = np.concatenate([batch[:, None].astype(np.float32), np.round(boxes)], 1)
        attributes = {"pooled_shape": [pool.integer(1, 3), 2], "spatial_scale": pool.one_of(1.0, 0.5)}
        return node(operator, [x, Value("", rows)], attributes)
    attributes = {
        "mode": pool.one_of("avg", "max"),
        "output_height": pool.integer(1, 3),
        "output_width": pool.integer(1, 3),
        "sampling_ratio": pool.integer(0, 2),
        "spatial_scale": pool.one_of(1.0, 0.5),
        "coordinate_transformation_mode": pool.one_of("half_pixel", "output_half_pixel"),
    }
    return node(operator, [x, Value("", boxes), Value("", batch)], attributes)


@makes("GridSample", "com.microsoft.GridSample")
def grid_sample(pool: Pool, operator: str) -> Proposal:
    rank = pool.one_of(2, 2, 3)
    x = pool.fresh([2, pool.integer(1, 3), *(pool.integer(2, 6) for _ in range(rank))], np.float32)
    shape = [2, *(pool.integer(1, 4) for _ in range(rank)), rank]
    grid = pool.random.uniform(-1.3, 1.3, shape).astype(np.float32)
    attributes = {"padding_mode": pool.one_of("zeros", "border", "reflection"), "align_corners": pool.integer(0, 1)}
    if operator.startswith("com"):
        attributes["mode"] = pool.one_of("bilinear", "nearest", "bicubic")
        return node("GridSample", [x, Value("", grid)], attributes, domain="com.microsoft")
    modes = ("linear", "nearest", "cubic") if rank == 2 else ("linear", "nearest")
    return node("GridSample", [x, Value("", grid)], {**attributes, "mode": pool.one_of(*modes)})


@makes("AffineGrid")
def affine_grid(pool: Pool, operator: str) -> Proposal:
    rank = pool.one_of(2, 2, 3)
    theta = pool.fresh([2, rank, rank + 1], np.float32)
    size = np.array([2, 3, *(pool.integer(1, 5) for _ in range(rank))])
    return node(operator, [theta, size], {"align_corners": pool.integer(0, 1)})


@makes("Col2Im")
def columns(pool: Pool, operator: str) -> Proposal:
    block = [pool.integer(1, 3), pool.integer(1, 3)]
    size = [extent + pool.integer(0, 3) for extent in block]
    places = (size[0] - block[0] + 1) * (size[1] - block[1] + 1)
    x = pool.fresh([2, pool.integer(1, 3) * block[0] * block[1], places], np.float32)
    return node(operator, [x, np.array(size), np.array(block)])


@makes("NonMaxSuppression")
def suppression(pool: Pool, operator: str) -> Proposal:
    count = pool.integer(2, 6)
    boxes = pool.random.random((1, count, 4)).astype(np.float32)
    scores = pool.random.random((1, 2, count)).astype(np.float32)
    most, overlap, least = np.array([3]), np.array([0.5], np.float32), np.array([0.1], np.float32)
    return node(operator, [Value("", boxes), Value("", scores), most, overlap, least], steps=True, last=True)
