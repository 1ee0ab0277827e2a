"""Operators that move elements about, and those that ask for shapes or make tensors of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from benchmarks.random_graphs.pool import Array, Pool, Value
from benchmarks.random_graphs.proposal import Proposal, makes, node


def _known(pool: Pool, *numbers: int) -> Value | Array:
    """Integers, rarely known only at run time."""
    array = np.array(numbers, np.int64)
    return Value("", array) if pool.flip(0.05) else array


@makes("Reshape")
def reshape(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", empty=True)
    size, attributes = x.array.size, {}
    shape: list[int] = []
    while size > 1 and len(shape) < 4:
        divisors = [d for d in range(2, size + 1) if size % d == 0]
        shape.append(pool.one_of(*divisors))
        size //= shape[-1]
    if size > 1 or not shape:
        shape.append(-1)
    if not x.array.size:
        shape, attributes = [0, pool.one_of(1, 3)], {"allowzero": 1}
    elif shape[0] == x.array.shape[0] and pool.flip():
        shape[0] = 0
    return node(operator, [x, _known(pool, *shape)], attributes, moves=True)


@makes("Transpose")
def transpose(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", empty=True)
    perm = {"perm": [int(p) for p in pool.random.permutation(x.array.ndim)]}
    return node(operator, [x], pool.one_of({}, perm, perm) if x.array.ndim else {}, moves=True)


@makes("Flatten")
def flatten(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", empty=True)
    return node(operator, [x], {"axis": pool.integer(-x.array.ndim, x.array.ndim)}, moves=True)


@makes("Unsqueeze")
def unsqueeze(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(0, 1, 2, 3), empty=True)
    axes = {pool.integer(-x.array.ndim - 1, x.array.ndim) for _ in range(pool.integer(1, 2))}
    return node(operator, [x, _known(pool, *axes)], moves=True)


@makes("Squeeze")
def squeeze(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib")
    ones = [axis - pool.one_of(0, x.array.ndim) for axis, extent in enumerate(x.array.shape) if extent == 1]
    return node(operator, [x, pool.one_of(None, _known(pool, *ones))], moves=True)


@makes("Concat")
def concat(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(1, 2, 3, 4), empty=True)
    axis, parts = pool.axis(x), [x]
    for _ in range(pool.integer(0, 3)):
        shape = list(x.array.shape)
        shape[axis] = pool.integer(0 if pool.wild else 1, 3)
        parts.append(pool.one_of(x, pool.fresh(shape, x.array.dtype)))
    return node(operator, parts, {"axis": axis}, moves=True)


@makes("Split")
def split(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(1, 2, 3, 4))
    axis = pool.axis(x)
    extent = x.array.shape[axis]
    if pool.flip(0.3):
        count = pool.integer(1, min(extent, 4))
        return node(operator, [x], {"axis": axis, "num_outputs": count}, outputs=count, moves=True)
    first = pool.integer(0 if pool.wild else 1, max(1, extent - 1))
    sizes = _known(pool, first, extent - first)
    return node(operator, [x, sizes], {"axis": axis}, outputs=2, moves=True)


@makes("Slice")
def slices(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(1, 2, 3, 4), empty=True)
    count = pool.integer(1, min(2, x.array.ndim))
    axes = [int(a) for a in pool.random.choice(x.array.ndim, count, replace=False)]
    starts, ends, steps = [], [], []
    for axis in axes:
        extent = x.array.shape[axis]
        step = pool.one_of(1, 1, 2, 3, -1, -2)
        starts.append(pool.integer(-extent - 1, extent))
        ends.append(pool.one_of(extent, 2**31 - 1, 2**63 - 1) if step > 0 else pool.one_of(-extent - 1, -(2**31)))
        if pool.flip(0.3):
            ends[-1] = pool.integer(-extent, extent)
        steps.append(step)
    turned = [axis - pool.one_of(0, x.array.ndim) for axis in axes]
    given = [_known(pool, *numbers) for numbers in (starts, ends, turned, steps)]
    return node(operator, [x, *given[: pool.one_of(4, 4, 3)]], moves=True)


@makes("Pad")
def pad(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi", rank=(1, 2, 3, 4))
    mode = pool.one_of("constant", "constant", "reflect", "edge", "wrap")
    pads = [pool.integer(-1 if mode == "constant" else 0, 2) for _ in range(2 * x.array.ndim)]
    value = pool.constant([], x.array.dtype) if mode == "constant" else None
    inputs = [x, _known(pool, *pads), pool.one_of(None, value)]
    if pool.flip(0.2):
        axis = pool.axis(x)
        inputs = [x, _known(pool, pool.integer(0, 2), pool.integer(0, 2)), inputs[2], np.array([axis])]
    return node(operator, inputs, {"mode": mode}, moves=True)


@makes("Tile")
def tile(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(1, 2, 3), empty=True)
    return node(operator, [x, _known(pool, *(pool.integer(1, 3) for _ in x.array.shape))], moves=True)


@makes("Expand")
def expand(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(0, 1, 2, 3), empty=True)
    shape = [pool.one_of(1, extent) if extent != 1 else pool.integer(1, 3) for extent in x.array.shape]
    return node(operator, [x, _known(pool, *([2] if pool.flip(0.4) else []), *shape)], moves=True)


def _indices(pool: Pool, array: Array) -> Value | Array:
    typed = np.asarray(array).astype(pool.one_of(np.int64, np.int64, np.int32))
    return typed if pool.flip() else Value("", typed)


@makes("Gather")
def gather(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(1, 2, 3, 4))
    axis = pool.axis(x)
    extent = x.array.shape[axis]
    shape = [pool.integer(0 if pool.wild else 1, 3) for _ in range(pool.integer(0, 2))]
    indices = _indices(pool, pool.random.integers(-extent, extent, shape))
    return node(operator, [x, indices], {"axis": axis}, moves=True)


@makes("GatherElements")
def gather_elements(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(1, 2, 3))
    axis = pool.axis(x)
    extent, shape = x.array.shape[axis], list(x.array.shape)
    shape[axis] = pool.integer(1, 4)
    return node(operator, [x, _indices(pool, pool.random.integers(-extent, extent, shape))], {"axis": axis}, moves=True)


@makes("GatherND", "com.microsoft.GatherND")
def gather_nd(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(1, 2, 3, 4))
    microsoft = operator.startswith("com")
    batch = 0 if microsoft else pool.one_of(0, 0, min(1, x.array.ndim - 1))
    depth = pool.integer(1, x.array.ndim - batch)
    rows = [*x.array.shape[:batch], 3]
    extents = x.array.shape[batch : batch + depth]
    indices = np.stack([pool.random.integers(-e, e, rows) for e in extents], axis=-1)
    attributes = {"batch_dims": batch} if batch else {}
    given = _indices(pool, indices) if microsoft else pool.one_of(indices, Value("", indices))
    domain = "com.microsoft" if microsoft else ""
    return node("GatherND", [x, given], attributes, domain=domain, moves=True)


@makes("ScatterElements")
def scatter(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi", rank=(1, 2, 3))
    axis = pool.axis(x)
    extent, shape = x.array.shape[axis], [pool.integer(1, extent) for extent in x.array.shape]
    shape[axis] = min(shape[axis], extent)
    order = np.argsort(pool.random.random([*shape[: axis % len(shape)], extent, *shape[axis % len(shape) + 1 :]]), axis)
    order = np.take(order, range(shape[axis]), axis)
    updates = pool.operand(order.shape, x.array.dtype)
    attributes: dict[str, Any] = {"axis": axis, "reduction": pool.one_of("none", "add", "mul", "max", "min")}
    order = order - pool.one_of(0, extent)
    if attributes["reduction"] != "none":
        order = pool.random.integers(-extent, extent, order.shape)
    return node(operator, [x, _indices(pool, order), updates], attributes)


@makes("ScatterND")
def scatter_nd(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi", rank=(1, 2, 3))
    depth = pool.integer(1, x.array.ndim)
    places = int(np.prod(x.array.shape[:depth]))
    count = pool.integer(1, min(4, places))
    flat = pool.random.choice(places, count, replace=False)
    indices = np.stack(np.unravel_index(flat, x.array.shape[:depth]), -1).astype(np.int64)
    updates = pool.operand([count, *x.array.shape[depth:]], x.array.dtype)
    attributes = {"reduction": pool.one_of("none", "add", "mul", "max", "min")}
    return node(operator, [x, pool.one_of(indices, Value("", indices)), updates], attributes)


@makes("TensorScatter")
def tensor_scatter(pool: Pool, operator: str) -> Proposal:
    batch, heads, length, depth = 2, pool.integer(1, 3), pool.integer(3, 8), pool.integer(1, 5)
    new, dtype = pool.integer(1, 3), pool.floats
    past = pool.fresh([batch, heads, length, depth], dtype)
    update = pool.fresh([batch, heads, new, depth], dtype)
    mode = pool.one_of("linear", "circular")
    at = pool.random.integers(0, length - new + 1, batch)
    return node(operator, [past, update, pool.one_of(None, at, Value("", at))], {"mode": mode}, moves=True)


@makes("Trilu", "com.microsoft.Trilu")
def triangle(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(2, 3))
    shift = pool.one_of(None, np.array(pool.integer(-3, 3)))
    domain = "com.microsoft" if operator.startswith("com") else ""
    return node("Trilu", [x, shift], {"upper": pool.integer(0, 1)}, domain=domain, moves=True)


@makes("com.microsoft.ExpandDims")
def expand_dims(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(1, 2, 3))
    axis = np.array(pool.integer(-x.array.ndim - 1, x.array.ndim), np.int32)
    return node("ExpandDims", [x, axis], domain="com.microsoft", moves=True)


@makes("SpaceToDepth", "DepthToSpace")
def blocks(pool: Pool, operator: str) -> Proposal:
    block = pool.integer(1, 3)
    batch, channels, height, width = (pool.integer(1, 3) for _ in range(4))
    attributes: dict[str, Any] = {"blocksize": block}
    if operator == "SpaceToDepth":
        height, width = block * height, block * width
    else:
        channels *= block * block
        attributes["mode"] = pool.one_of("DCR", "CRD")
    x = pool.pick(rank=(4,)) if pool.flip(0.2) else pool.fresh([batch, channels, height, width], pool.floats)
    return node(operator, [x], attributes, moves=True)


@makes("ReverseSequence")
def reverse(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", rank=(2, 3))
    time = pool.integer(0, 1)
    lengths = pool.random.integers(1, x.array.shape[time] + 1, x.array.shape[1 - time])
    attributes = {"time_axis": time, "batch_axis": 1 - time}
    return node(operator, [x, pool.one_of(lengths, Value("", lengths))], attributes, moves=True)


@makes("OneHot")
def one_hot(pool: Pool, operator: str) -> Proposal:
    depth = pool.integer(1, 6)
    shape = [pool.integer(1, 4) for _ in range(pool.integer(0, 3))]
    indices = pool.random.integers(-depth - 1, depth + 2, shape).astype(pool.one_of(np.int64, np.int32))
    dtype = pool.one_of(np.float32, np.int64, np.int32)
    values = pool.constant([2], dtype)
    axis = pool.integer(-len(shape) - 1, len(shape))
    return node(operator, [Value("", np.asarray(indices)), np.array(depth), values], {"axis": axis}, moves=True)


@makes("EyeLike")
def eye(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi", rank=(2,))
    to = pool.one_of(None, TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL)
    return node(operator, [x], {"k": pool.integer(-3, 3), **({} if to is None else {"dtype": int(to)})}, moves=True)


@makes("CenterCropPad")
def crop(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi", rank=(1, 2, 3, 4))
    axes = sorted(int(a) for a in pool.random.choice(x.array.ndim, pool.integer(1, x.array.ndim), replace=False))
    sizes = np.array([pool.integer(1, 9) for _ in axes])
    return node(operator, [x, sizes], {"axes": [axis - pool.one_of(0, x.array.ndim) for axis in axes]}, moves=True)


@makes("Shape", "Size")
def shape_of(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", empty=True)
    attributes = {}
    if operator == "Shape" and pool.flip():
        attributes = {"start": pool.integer(-x.array.ndim, x.array.ndim), "end": pool.integer(-2, x.array.ndim)}
    return node(operator, [x], attributes, moves=True)


@makes("ConstantOfShape", "Constant", "Range")
def made(pool: Pool, operator: str) -> Proposal:
    dtype = pool.one_of(np.float32, np.int64, np.int32, np.bool_, np.uint8, np.float16)
    if operator == "Constant":
        value = numpy_helper.from_array(pool.constant([pool.integer(1, 3), 2], dtype))
        numbers = {"value_floats": [pool.number(), 2.0]}, {"value_int": 3}, {"value_ints": [4, 5]}, {"value": value}
        return node(operator, [], pool.one_of(*numbers, {"value_float": 0.5}), moves=True)
    if operator == "ConstantOfShape":
        shape = np.array([pool.integer(1, 4) for _ in range(pool.integer(0, 3))], np.int64)
        value = numpy_helper.from_array(pool.constant([1], dtype))
        return node(operator, [_known(pool, *shape) if shape.size else shape], pool.one_of({}, {"value": value}))
    kind = pool.one_of(np.float32, np.int64, np.int32)
    start, step = pool.integer(-3, 3), pool.one_of(1, 2, -1)
    numbers3 = [np.array(n, kind) for n in (start, start + step * pool.integer(1, 6), step)]
    return node(operator, numbers3, moves=True)


@makes("NonZero", "Compress", "Unique")
def found(pool: Pool, operator: str) -> Proposal:
    """Results have as many elements as the data say; they are left to ONNX Runtime."""
    if operator == "Compress":
        x = pool.pick("fib", rank=(1, 2, 3))
        axis = pool.axis(x)
        chosen = pool.fresh([x.array.shape[axis]], np.bool_)
        return node(operator, [x, chosen], {"axis": axis}, moves=True, last=True)
    if operator == "NonZero":
        return node(operator, [pool.pick("fib", exact=True)], moves=True, last=True, steps=True)
    x = pool.pick(types=("float32", "int64", "int8"), rank=(1,), exact=True)
    attributes = {"sorted": pool.integer(0, 1)}
    return node(operator, [x], attributes, outputs=pool.integer(1, 4), moves=True, last=True, steps=True)
