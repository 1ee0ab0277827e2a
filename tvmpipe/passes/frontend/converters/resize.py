"""Resize and Upsample of any axes, in all modes: each axis is gathered or multiplied with weights that are made here.

TVM resizes the last axes of a tensor by whole extents; that is used where it says the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.arithmetic.element_types import is_float
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts
from tvmpipe.passes.kernels.base import shape_of

_FEW_TAPS = 4
_FAST_COORDINATES = (b"half_pixel", b"pytorch_half_pixel", b"asymmetric", b"align_corners")


@dataclass(frozen=True)
class _Mode:
    """How values between elements are found: attributes of Resize."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    antialias: bool
    exclude_outside: bool
    extrapolation: float


@converts("Resize")
def resize(node: OnnxNode) -> Any:
    """`x` resized by `scales` or to `sizes`, along `axes` where they are given."""
    shape = node.shape(0)
    attributes = node.attributes
    rank = len(shape)
    axes = [int(axis) % rank for axis in attributes.get("axes", range(rank))]
    roi: NDArray[Any] | None = None
    scales: NDArray[Any] | None
    sizes: NDArray[Any] | None = None
    if node.opset < 11:
        mode = _Mode(attributes.get("mode", b"nearest").decode(), "asymmetric", "floor", -0.75, False, False, 0.0)
        scales = node.required(1, "scales")
    else:
        mode = _Mode(
            attributes.get("mode", b"nearest").decode(),
            attributes.get("coordinate_transformation_mode", b"half_pixel").decode(),
            attributes.get("nearest_mode", b"round_prefer_floor").decode(),
            float(attributes.get("cubic_coeff_a", -0.75)),
            bool(attributes.get("antialias", 0)),
            bool(attributes.get("exclude_outside", 0)),
            float(attributes.get("extrapolation_value", 0.0)),
        )
        sizes = _some(node.known(3, "sizes"))
        scales = _some(node.known(2, "scales")) if sizes is None else None
        roi = _some(node.known(1, "roi")) if mode.coordinates == "tf_crop_and_resize" else None
    factors, wanted = [1.0] * rank, list(shape)
    for place, axis in enumerate(axes):
        if scales is not None:
            factors[axis] = float(scales[place])
            wanted[axis] = int(np.floor(factors[axis] * shape[axis]))
        elif sizes is not None:
            wanted[axis] = int(sizes[place])
            factors[axis] = wanted[axis] / shape[axis]
    policy = attributes.get("keep_aspect_ratio_policy", b"stretch")
    if sizes is not None and policy != b"stretch":
        factor = (min if policy == b"not_larger" else max)(factors[axis] for axis in axes)
        for axis in axes:
            factors[axis], wanted[axis] = factor, int(factor * shape[axis] + 0.5)
    bounds = None
    if roi is not None:
        bounds = {axis: (float(roi[place]), float(roi[len(axes) + place])) for place, axis in enumerate(axes)}
    fast = _by_tvm(node, mode, factors, wanted)
    return _by_axis(node, mode, factors, wanted, bounds) if fast is None else fast


@converts("Upsample")
def upsample(node: OnnxNode) -> Any:
    """Resize as it was before opset 10: `scales` are an attribute before opset 9, an input from then on."""
    shape = node.shape(0)
    given = node.attributes["scales"] if node.opset < 9 else node.required(1, "scales")
    factors = [float(scale) for scale in given]
    wanted = [int(np.floor(factor * extent)) for factor, extent in zip(factors, shape, strict=True)]
    mode = _Mode(node.attributes.get("mode", b"nearest").decode(), "asymmetric", "floor", -0.75, False, False, 0.0)
    mode = mode if mode.mode == "nearest" else _Mode("linear", "asymmetric", "floor", -0.75, False, False, 0.0)
    fast = _by_tvm(node, mode, factors, wanted)
    return _by_axis(node, mode, factors, wanted, None) if fast is None else fast


def _some(values: NDArray[Any] | None) -> NDArray[Any] | None:
    return values if values is not None and values.size else None


def _by_tvm(node: OnnxNode, mode: _Mode, factors: list[float], wanted: list[int]) -> Any:
    """TVM's own resizing of images where it says the same, None elsewhere."""
    from tvm import relax

    shape, x = node.shape(0), node.input(0)
    whole = all(
        abs(factor * extent - out) < 1e-6 * out for factor, extent, out in zip(factors, shape, wanted, strict=True)
    )
    plain = not mode.antialias and not mode.exclude_outside and mode.coordinates.encode() in _FAST_COORDINATES
    floats = str(x.ty.dtype) in ("float32", "float16", "float64")
    if len(shape) != 4 or list(shape[:2]) != wanted[:2] or not whole or not plain or not floats or 1 in wanted[2:]:
        return None
    return relax.op.image.resize2d(
        x,
        relax.ShapeExpr(wanted[2:]),
        roi=[0.0] * 4,
        layout="NCHW",
        method="nearest_neighbor" if mode.mode == "nearest" else mode.mode,
        coordinate_transformation_mode=mode.coordinates,
        rounding_method=mode.nearest,
        cubic_alpha=mode.cubic,
    )


def _by_axis(
    node: OnnxNode,
    mode: _Mode,
    factors: list[float],
    wanted: list[int],
    bounds: dict[int, tuple[float, float]] | None,
) -> Any:
    """Each axis in turn; interpolation is separable."""
    from tvm import relax

    x = node.input(0)
    dtype = str(x.ty.dtype)
    whole = not is_float(dtype)
    if whole and mode.mode != "nearest":
        x = node.emit(relax.op.astype(x, "float32"))
    for axis, (factor, out) in enumerate(zip(factors, wanted, strict=True)):
        extent = shape_of(x)[axis]
        region = (0.0, 1.0) if bounds is None else bounds.get(axis, (0.0, 1.0))
        if factor == 1.0 and out == extent and region == (0.0, 1.0):
            continue
        if not out or not extent:
            raise NotImplementedError("a tensor without elements is resized")
        x = _resized(node, x, axis, _coordinates(mode, extent, out, factor, region), factor, mode)
    if whole and mode.mode != "nearest":
        info = np.iinfo(dtype)
        x = node.emit(relax.op.clip(relax.op.round(x), int(info.min), int(info.max)))
        x = node.emit(relax.op.astype(x, dtype))
    return x


def _coordinates(mode: _Mode, extent: int, out: int, factor: float, region: tuple[float, float]) -> NDArray[np.float64]:
    """Where each element of the result lies in the input, in elements."""
    place = np.arange(out, dtype=np.float64)
    exact = factor * extent
    if mode.coordinates == "align_corners":
        return np.zeros(out) if exact == 1 else place * (extent - 1) / (exact - 1)
    if mode.coordinates == "asymmetric":
        return place / factor
    if mode.coordinates == "tf_crop_and_resize":
        begin, end = region
        if exact == 1:
            return np.full(out, (end - begin) * (extent - 1) / 2 + begin * (extent - 1))
        return place * (end - begin) * (extent - 1) / (exact - 1) + begin * (extent - 1)
    if mode.coordinates == "pytorch_half_pixel" and exact == 1:
        return np.full(out, -0.5)
    shift = extent / 2 * (1 - out / exact) if mode.coordinates == "half_pixel_symmetric" else 0.0
    return shift + (place + 0.5) / factor - 0.5


def _resized(node: OnnxNode, x: Any, axis: int, where: NDArray[np.float64], factor: float, mode: _Mode) -> Any:
    from tvm import relax

    shape = shape_of(x)
    extent, dtype = shape[axis], str(x.ty.dtype)
    if mode.mode == "nearest":
        rounded = {
            "round_prefer_floor": np.ceil(where - 0.5),
            "round_prefer_ceil": np.floor(where + 0.5),
            "floor": np.floor(where),
            "ceil": np.ceil(where),
        }[mode.nearest]
        places = np.clip(rounded, 0, extent - 1).astype(np.int64)
        result = node.emit(relax.op.take(x, relax.const(places, "int64"), axis=axis))
    else:
        places, weights = _taps(where, extent, factor, mode)
        column = [1] * len(shape)
        column[axis] = len(where)
        if weights.shape[1] <= _FEW_TAPS:
            result = None
            for tap in range(weights.shape[1]):
                values = relax.op.take(x, relax.const(places[:, tap], "int64"), axis=axis)
                part = node.emit(relax.op.multiply(values, relax.const(weights[:, tap].reshape(column), dtype)))
                result = part if result is None else node.emit(relax.op.add(result, part))
        else:
            matrix = np.zeros((extent, len(where)))
            np.add.at(matrix, (places, np.arange(len(where))[:, None]), weights)
            others = [place for place in range(len(shape)) if place != axis]
            rows = node.emit(relax.op.permute_dims(x, [*others, axis]))
            product = node.emit(relax.op.matmul(rows, relax.const(matrix, dtype)))
            back = list(range(len(others)))
            back.insert(axis, len(others))
            result = node.emit(relax.op.permute_dims(product, back))
    if mode.coordinates == "tf_crop_and_resize":
        outside = (where < 0) | (where > extent - 1)
        if outside.any():
            column = [1] * len(shape)
            column[axis] = len(where)
            value = relax.const(mode.extrapolation, dtype)
            result = node.emit(relax.op.where(relax.const(outside.reshape(column), "bool"), value, result))
    return result


def _taps(
    where: NDArray[np.float64], extent: int, factor: float, mode: _Mode
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which elements each result is made of, and their weights: [out, taps] both.

    Places outside are those of the nearest edge, or weigh nothing with `exclude_outside`.
    """
    left = np.ceil(where) - 1
    ratio = where - left  # above 0, at most 1
    scale = min(factor, 1.0) if mode.antialias else 1.0
    reach = (1 if mode.mode == "linear" else 2) / scale
    first = int(np.floor(-reach)) + 1
    steps = np.arange(first, 2 - first)
    distance = np.abs(steps - ratio[:, None]) * scale
    if mode.mode == "linear":
        weights = np.clip(1 - distance, 0, 1)
    else:
        a = mode.cubic
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    places = (left[:, None] + steps).astype(np.int64)
    if mode.exclude_outside:
        weights = np.where((places < 0) | (places >= extent), 0.0, weights)
    if mode.exclude_outside or mode.antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(places, 0, extent - 1), weights
