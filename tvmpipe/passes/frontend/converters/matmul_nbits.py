"""com.microsoft.MatMulNBits: a matrix of 2, 4 or 8 bits that stays packed, and is unpacked where it is multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.arithmetic.quantised import dtype_of
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts
from tvmpipe.passes.kernels.base import constant_of, shape_of
from tvmpipe.passes.kernels.weight_only_matmul.compute import emit_product
from tvmpipe.passes.kernels.weight_only_matmul.weight import PackedWeight, pack_weight


@converts("MatMulNBits", MICROSOFT)
def matmul_nbits(node: OnnxNode) -> Any:
    """`A @ dequantised(B).T + bias`, in float32; the sums of halves are rounded at the end.

    `B` is `[N, blocks, block_size * bits / 8]`, the lowest bits first; each block of a row has a scale, and a zero
    point that is packed as `B` is (a row begins with a byte), of A's type, or `2^(bits - 1)`. A is never
    quantised, whatever `accuracy_level` allows.
    """
    from tvm import relax

    builder = node.builder
    a, packed, scales, zeros, groups, bias = (node.input(place) for place in range(6))
    columns, k = int(node.attributes["N"]), int(node.attributes["K"])
    bits, block = int(node.attributes.get("bits", 4)), int(node.attributes["block_size"])
    if bits not in (2, 4, 8):
        raise NotImplementedError(f"weights of {bits} bits; 2, 4 and 8 can be compiled")
    if groups is not None:
        raise NotImplementedError("columns that are put into groups (g_idx)")
    blocks = -(-k // block)
    tensors = {"a": a, "packed": packed, "scales": scales, "zeros": zeros}
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    shapes = {"packed": (columns, blocks, block * bits // 8), "scales": (columns, blocks)}
    if zeros is not None:
        whole = dtype_of(zeros) == "uint8"
        shapes["zeros"] = (columns, -(-blocks * bits // 8)) if whole else (columns, blocks)
    for name, shape in shapes.items():
        if shape_of(given[name]) != shape:
            given[name] = builder.emit(relax.op.reshape(given[name], list(shape)))

    weight = _packed_weight(given, bits, block, k)
    if weight is not None:
        product, first_columns = emit_product(builder, given["a"], weight)
        product = builder.emit(product)
        if first_columns is not None:
            product = builder.emit(first_columns(product))
        return product if bias is None else builder.emit(relax.op.add(product, bias))

    def compute(*placeholders: Any) -> Any:
        return _product(dict(zip(given, placeholders, strict=True)), bits, block, k, columns)

    product = builder.emit(builder.call_te(compute, *given.values(), primfunc_name_hint="matmul_nbits"))
    return product if bias is None else builder.emit(relax.op.add(product, bias))


def _packed_weight(tensors: dict[str, Any], bits: int, block: int, k: int) -> PackedWeight | None:
    """The weight as the kernel reads it, where it is constant and A is of float32 rows; else None."""
    a = tensors["a"]
    arrays = {name: constant_of(tensor) for name, tensor in tensors.items() if name != "a"}
    if dtype_of(a) != "float32" or len(shape_of(a)) < 2 or any(array is None for array in arrays.values()):
        return None
    packed, scales = (arrays[name].reshape(shape_of(tensors[name])) for name in ("packed", "scales"))
    columns, blocks = scales.shape
    zeros: float | NDArray[Any] = float(1 << bits - 1)
    if "zeros" in arrays:
        points = arrays["zeros"].reshape(shape_of(tensors["zeros"]))
        if points.dtype == np.uint8:
            fields = points[..., None] >> np.arange(0, 8, bits, dtype=np.uint8) & np.uint8((1 << bits) - 1)
            zeros = fields.reshape(columns, -1)[:, :blocks].T
        else:
            zeros = points.astype(np.float32).T
    words = np.ascontiguousarray(packed).reshape(columns, -1).view("<u4")  # bytes begin with the lowest bits, too
    return pack_weight(words.T, scales.astype(np.float32).T, zeros, k=k, bits=bits, block=block)


def _product(tensors: dict[str, Any], bits: int, block: int, k: int, columns: int) -> Any:
    """The TE computation: `[..., K]` times the packed `[N, blocks, bytes]`."""
    from tvm import te, tirx

    a, packed, scales, zeros = (tensors.get(name) for name in ("a", "packed", "scales", "zeros"))
    assert a is not None
    assert packed is not None
    assert scales is not None
    each, axis = 8 // bits, te.reduce_axis((0, k), name="k")

    def field(byte: Any, place: Any) -> Any:
        shift = (place % each * bits).astype("int32")
        return (byte.astype("int32") >> shift) & tirx.const((1 << bits) - 1, "int32")

    def weight(column: Any, at: Any) -> Any:
        group = at // block
        number = field(packed(column, group, at % block // each), at % block).astype("float32")
        if zeros is None:
            zero: Any = tirx.const(float(1 << (bits - 1)), "float32")
        elif str(zeros.dtype) == "uint8":
            zero = field(zeros(column, group // each), group).astype("float32")
        else:
            zero = zeros(column, group).astype("float32")
        return (number - zero) * scales(column, group).astype("float32")

    def element(*indices: Any) -> Any:
        *rows, column = indices
        return te.sum(a(*rows, axis).astype("float32") * weight(column, axis), axis=axis)

    total = te.compute((*a.shape[:-1], columns), element, name="matmul_nbits")
    if str(a.dtype) == "float32":
        return total
    return te.compute(total.shape, lambda *at: total(*at).astype(str(a.dtype)), name="rounded")
