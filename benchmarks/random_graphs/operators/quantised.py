"""Integers with scales and zero points, of ONNX and of com.microsoft."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from benchmarks.random_graphs.operators.windows import window
from benchmarks.random_graphs.pool import Array, Pool, Value
from benchmarks.random_graphs.proposal import Proposal, makes, node

_MS = "com.microsoft"
BYTES = ("uint8", "int8")


def byte(pool: Pool, shape: Any, dtype: Any = None) -> Array:
    """Random numbers of 8 bits, the extremes among them."""
    dtype = np.dtype(dtype or pool.one_of(*BYTES))
    limits = np.iinfo(dtype)
    return np.asarray(pool.random.integers(limits.min, limits.max + 1, shape)).astype(dtype)


def weights(pool: Pool, shape: Any, dtype: Any = None) -> Array:
    """As `byte`; signed ones are small, for without VNNI ONNX Runtime's sums of two products saturate at 16 bits."""
    array = byte(pool, shape, dtype)
    return array if array.dtype == np.uint8 else (array // 2).astype(np.int8)


def scale(pool: Pool, shape: Any = ()) -> Array:
    """Positive, of few digits."""
    return np.asarray(np.round(pool.random.uniform(0.01, 0.2, shape), 3), np.float32)


def zero(pool: Pool, dtype: Any, shape: Any = ()) -> Array:
    """A zero point."""
    low = -20 if np.dtype(dtype).kind == "i" else 0
    return np.asarray(pool.random.integers(low, 60, shape)).astype(dtype)


def _granular(pool: Pool, x: Value, dtype: Any) -> tuple[Array, Array | None, dict[str, Any]]:
    """Scale, zero point and attributes: one for the tensor, one for each channel, or one for each block."""
    form = pool.one_of("tensor", "tensor", "axis", "block") if x.array.ndim else "tensor"
    if form == "tensor":
        shape, attributes = [], {}
    else:
        axis = pool.axis(x)
        shape, attributes = [x.array.shape[axis]], {"axis": axis}
        if form == "block":
            size = pool.integer(1, x.array.shape[axis])
            shape = list(x.array.shape)
            shape[axis] = -(-shape[axis] // size)
            attributes["block_size"] = size
    return scale(pool, shape), pool.one_of(None, zero(pool, dtype, shape)), attributes


@makes("QuantizeLinear", "com.microsoft.QuantizeLinear")
def quantise(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("float32",), exact=True, empty=True)
    if not np.isfinite(x.array).all():
        raise LookupError("what NaN becomes is open")
    dtype = pool.one_of(np.uint8, np.int8, np.uint16, np.int16)
    by, point, attributes = _granular(pool, x, dtype)
    if operator == "QuantizeLinear":
        if point is None and pool.flip():
            attributes["output_dtype"] = int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        return node(operator, [x, by, point], attributes, steps=True, apart=1)
    point = zero(pool, dtype, by.shape)
    return node("QuantizeLinear", [x, by, point], attributes, domain=_MS, steps=True, apart=1)


@makes("DequantizeLinear", "com.microsoft.DequantizeLinear")
def dequantise(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("uint8", "int8", "uint16", "int16", "int32"), exact=True, empty=True)
    by, point, attributes = _granular(pool, x, x.array.dtype)
    if x.array.dtype == np.int32:
        point = None
    domain = _MS if operator.startswith("com") else ""
    if domain and point is None:
        point = np.zeros(by.shape, x.array.dtype)
    return node("DequantizeLinear", [x, by, point], attributes, domain=domain, moves=True)


@makes("DynamicQuantizeLinear")
def dynamic(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("float32",), exact=True)
    if not np.isfinite(x.array).all():
        raise LookupError("what NaN becomes is open")
    return node(operator, [x], outputs=3, steps=True, last=True, apart=1)


@makes("MatMulInteger", "com.microsoft.MatMulIntegerToFloat", "com.microsoft.DynamicQuantizeMatMul")
def integer_product(pool: Pool, operator: str) -> Proposal:
    m, k, n = pool.integer(1, 5), pool.integer(1, 20), pool.one_of(1, 3, 8, 17)
    batch = pool.one_of([], [2])
    kind = pool.one_of(*BYTES)
    weight: Any = weights(pool, [k, n], kind)
    weight = pool.one_of(weight, weight, Value("", weight))
    points = pool.one_of(None, zero(pool, kind, pool.one_of((), (n,))))
    by = scale(pool, () if points is None else points.shape)
    bias = pool.one_of(None, pool.constant([n], tame=True))
    if operator.endswith("DynamicQuantizeMatMul"):
        x = pool.fresh([*batch, m, k], np.float32, tame=True)
        inputs: list[Any] = [x, weight, by, points, bias]
        return node("DynamicQuantizeMatMul", inputs, domain=_MS, last=True, apart=1)
    a = Value("", byte(pool, [*batch, m, k]))
    point = pool.one_of(None, zero(pool, a.array.dtype))
    if operator == "MatMulInteger":
        return node(operator, [a, weight, point, points])
    return node("MatMulIntegerToFloat", [a, weight, scale(pool), by, point, points, bias], domain=_MS)


@makes("ConvInteger", "QLinearConv", "com.microsoft.QLinearConv")
def integer_convolution(pool: Pool, operator: str) -> Proposal:
    rank = pool.one_of(1, 2, 2)
    channels = pool.one_of(1, 2, 3, 4)
    groups = pool.one_of(1, 1, channels)
    outputs = groups * pool.integer(1, 3)
    kernel, attributes = window(pool, rank)
    attributes["group"] = groups
    shape = [pool.integer(1, 2), channels, *(extent + pool.integer(0, 4) for extent in kernel)]
    x = Value("", byte(pool, shape))
    weight = weights(pool, [outputs, channels // groups, *kernel], np.int8 if x.array.dtype == np.int8 else None)
    point = zero(pool, x.array.dtype)
    if operator == "ConvInteger":
        return node(
            operator, [x, weight, pool.one_of(None, point), pool.one_of(None, zero(pool, weight.dtype))], attributes
        )
    per = pool.one_of((), (outputs,))
    points = np.zeros(per, weight.dtype) if weight.dtype == np.int8 else zero(pool, weight.dtype, per)
    bias = pool.one_of(None, pool.random.integers(-500, 500, outputs).astype(np.int32))
    out = x.array.dtype
    inputs: list[Any] = [
        x,
        scale(pool),
        point,
        weight,
        scale(pool, per),
        points,
        np.float32(0.9) * np.ones((), np.float32),
    ]
    inputs += [zero(pool, out), bias]
    domain = ""
    if operator.startswith("com"):
        domain, attributes["channels_last"] = _MS, 0
    return node("QLinearConv", inputs, attributes, domain=domain, last=True, apart=1)


@makes("QLinearMatMul", "com.microsoft.QGemm")
def quantised_product(pool: Pool, operator: str) -> Proposal:
    m, k, n = pool.integer(1, 5), pool.integer(1, 20), pool.one_of(1, 3, 8, 17)
    a = Value("", byte(pool, [m, k]))
    weight = weights(pool, [k, n], np.int8 if a.array.dtype == np.int8 else None)
    per = pool.one_of((), (n,))
    first: list[Any] = [
        a,
        scale(pool),
        zero(pool, a.array.dtype),
        weight,
        scale(pool, per),
        zero(pool, weight.dtype, per),
    ]
    result = [np.array(0.5, np.float32), zero(pool, a.array.dtype)]
    if operator == "QLinearMatMul":
        return node(operator, [*first, *result], last=True, apart=1)
    bias = pool.one_of(None, pool.random.integers(-500, 500, n).astype(np.int32))
    ends = pool.one_of([None, None], result)
    return node("QGemm", [*first, bias, *ends], {"alpha": 1.0}, domain=_MS, last=True, apart=1)


@makes(
    *(f"com.microsoft.QLinear{name}" for name in ("Add", "Mul", "Sigmoid", "LeakyRelu", "Softmax", "Where", "Concat"))
)
def quantised_elementwise(pool: Pool, operator: str) -> Proposal:
    name, kind = operator.removeprefix(f"{_MS}."), pool.one_of(*BYTES)
    shape = [pool.integer(1, 4) for _ in range(pool.integer(1, 4))]

    def tensor(extents: Any) -> list[Any]:
        return [Value("", byte(pool, extents, kind)), scale(pool), zero(pool, kind)]

    result = [scale(pool), zero(pool, kind)]
    how: dict[str, Any] = {"domain": _MS, "last": True, "apart": 1}
    if name in ("QLinearAdd", "QLinearMul"):
        other = [extent if pool.flip(0.7) else 1 for extent in shape]
        return node(name, [*tensor(shape), *tensor(other), *result], **how)
    if name == "QLinearWhere":
        chosen = pool.fresh(shape, np.bool_)
        return node(name, [chosen, *tensor(shape), *tensor(shape), *result], **how)
    if name == "QLinearConcat":
        parts = [one for _ in range(pool.integer(1, 3)) for one in tensor(shape)]
        return node(name, [*result, *parts], {"axis": pool.integer(0, len(shape) - 1)}, **how)
    if name == "QLinearSoftmax":
        shape[-1] += 1  # of one number ONNX Runtime makes 0
        # With 1 / 256, as quantisers write it, one is 256 steps, and ONNX Runtime makes 0 of that.
        ends = [np.array(1 / 250, np.float32), np.array(0 if kind == "uint8" else -128, kind)]
        return node(name, [*tensor(shape), *ends], {"axis": -1, "opset": 13}, **how)
    attributes = {"alpha": pool.number(0, 1)} if name == "QLinearLeakyRelu" else {}
    return node(name, [*tensor(shape), *result], attributes, **how)


@makes("com.microsoft.QLinearAveragePool", "com.microsoft.QLinearGlobalAveragePool")
def quantised_pool(pool: Pool, operator: str) -> Proposal:
    name, kind = operator.removeprefix(f"{_MS}."), pool.one_of(*BYTES)
    last = pool.integer(0, 1)
    kernel, attributes = window(pool, 2, dilated=False)
    x = Value("", byte(pool, [2, pool.integer(1, 4), *(extent + pool.integer(1, 4) for extent in kernel)], kind))
    attributes |= {"kernel_shape": kernel, "count_include_pad": pool.integer(0, 1)}
    if name == "QLinearGlobalAveragePool":
        attributes = {"channels_last": last}
    inputs: list[Any] = [x, scale(pool), zero(pool, kind), scale(pool), zero(pool, kind)]
    return node(name, inputs, attributes, domain=_MS, last=True, apart=1)


@makes("com.microsoft.MatMulNBits")
def few_bits(pool: Pool, operator: str) -> Proposal:
    bits, block = pool.one_of(4, 4, 8), pool.one_of(16, 32)
    k, n = pool.one_of(16, 32, 48), pool.one_of(3, 8, 16)
    blocks = -(-k // block)
    weight = byte(pool, [n, blocks, block * bits // 8], np.uint8)
    scales = scale(pool, [n, blocks])
    point = pool.one_of(None, byte(pool, [n, -(-blocks * bits // 8)], np.uint8))
    attributes = {"K": k, "N": n, "bits": bits, "block_size": block}
    x = pool.fresh([pool.integer(1, 5), k], np.float32, tame=True)
    return node("MatMulNBits", [x, weight, scales, point], attributes, domain=_MS)


def _quantised_types(pool: Pool) -> tuple[int, str]:
    kinds = {TensorProto.INT4: "int4", TensorProto.UINT4: "uint4", TensorProto.FLOAT8E4M3FN: "float8_e4m3fn"}
    kinds |= {TensorProto.INT2: "int2", TensorProto.UINT2: "uint2", TensorProto.FLOAT8E5M2: "float8_e5m2"}
    kind = pool.one_of(*kinds)
    return int(kind), kinds[kind]


@makes("quantised and back")
def back(pool: Pool, operator: str) -> Proposal:
    """Through a type that numpy has not: QuantizeLinear, DequantizeLinear."""
    x = pool.pick(types=("float32",), exact=True)
    if not np.isfinite(x.array).all():
        raise LookupError("what NaN becomes is open")
    name = _quantised_types(pool)[1]
    by = scale(pool)
    point = np.zeros((), getattr(ml_dtypes, name))
    nodes = [
        helper.make_node("QuantizeLinear", ["i0", "i1", "i2"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "i1", "i2"], ["o0"]),
    ]
    return Proposal(nodes, [x, by, point], steps=True, apart=1)


@makes("quantised network")
def network(pool: Pool, operator: str) -> Proposal:
    """Operators between DequantizeLinear and QuantizeLinear, as quantisers write them."""
    kind = pool.one_of(*BYTES)
    channels, rows = pool.integer(1, 4), pool.integer(1, 5)
    first, second = Value("", byte(pool, [1, channels, rows, 4], kind)), byte(pool, [3, channels, 1, 1], np.int8)
    name = pool.one_of("Conv", "MatMul", "Add", "Mul", "Relu", "Sigmoid", "AveragePool", "Concat", "Softmax")
    if name == "MatMul":
        second = byte(pool, [4, 5], np.int8)
    if name in ("Add", "Mul", "Concat"):
        second = byte(pool, [1, channels, rows, 4], kind)
    shaped: dict[str, dict[str, Any]] = {"AveragePool": {"kernel_shape": [1, 2]}, "Concat": {"axis": 1}}
    attributes = shaped.get(name, {})
    reads = ["a"] if name in ("Relu", "Sigmoid", "AveragePool", "Softmax") else ["a", "b"]
    nodes = [helper.make_node("DequantizeLinear", ["i0", "i1", "i2"], ["a"])]
    if "b" in reads:
        nodes.append(helper.make_node("DequantizeLinear", ["i3", "i4", "i5"], ["b"]))
    nodes.append(helper.make_node(name, reads, ["c"], **attributes))
    nodes.append(helper.make_node("QuantizeLinear", ["c", "i6", "i7"], ["o0"]))
    inputs: list[Any] = [first, scale(pool), zero(pool, kind), second, scale(pool), np.zeros((), second.dtype)]
    if "b" not in reads:
        inputs[3:] = [None] * 3
    step = np.array(pool.one_of(0.05, 0.5), np.float32)
    return Proposal(nodes, [*inputs, step, zero(pool, kind)], last=True, apart=1)
