"""Operators that take tensors element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from benchmarks.random_graphs.pool import Array, Pool, Value
from benchmarks.random_graphs.proposal import Proposal, makes, node

_SMOOTH: dict[str, Callable[[Pool], dict[str, Any]]] = {
    **{
        name: lambda _: {}
        for name in (
            *("Sigmoid", "Tanh", "Erf", "Softplus", "Softsign", "Sin", "Cos", "Tan", "Atan", "HardSwish", "Mish"),
            *("Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Asin", "Acos", "Exp", "Log", "Sqrt", "Reciprocal"),
        )
    },
    "Gelu": lambda pool: {"approximate": pool.one_of("none", "tanh")},
    "Selu": lambda pool: pool.one_of({}, {"alpha": pool.number(0.1, 2), "gamma": pool.number(0.1, 2)}),
    "HardSigmoid": lambda pool: pool.one_of({}, {"alpha": pool.number(-1, 1), "beta": pool.number()}),
    "Elu": lambda pool: pool.one_of({}, {"alpha": pool.number(-1, 2)}),
    "Celu": lambda pool: pool.one_of({}, {"alpha": pool.number(0.2, 2)}),
    "LeakyRelu": lambda pool: pool.one_of({}, {"alpha": pool.number(-1, 2)}),
    "Swish": lambda pool: pool.one_of({}, {"alpha": pool.number(-1, 2)}),
}


@makes(*_SMOOTH)
def smooth(pool: Pool, operator: str) -> Proposal:
    return node(operator, [pool.pick(empty=True)], _SMOOTH[operator](pool))


@makes("SwiGLU")
def gated(pool: Pool, operator: str) -> Proposal:
    x = pool.pick()
    return node(operator, [x, pool.operand(x.array.shape, x.array.dtype)], pool.one_of({}, {"alpha": pool.number()}))


@makes("Abs", "Neg", "Relu", "Identity", "Sign")
def sign_kept(pool: Pool, operator: str) -> Proposal:
    exact = operator == "Sign"
    kinds = "fib" if operator == "Identity" else "fi"
    return node(operator, [pool.pick(kinds, exact=exact, empty=True)], moves=True, steps=exact)


@makes("Floor", "Ceil", "Round", "IsNaN")
def rounding(pool: Pool, operator: str) -> Proposal:
    return node(operator, [pool.pick(exact=True, empty=True)], steps=True, moves=True)


@makes("IsInf")
def infinite(pool: Pool, operator: str) -> Proposal:
    attributes = {"detect_negative": pool.integer(0, 1), "detect_positive": pool.integer(0, 1)}
    return node(operator, [pool.pick(exact=True)], attributes, steps=True, moves=True)


@makes("Shrink", "ThresholdedRelu")
def cut(pool: Pool, operator: str) -> Proposal:
    if operator == "Shrink":
        attributes = pool.one_of({}, {"lambd": pool.number(0, 1), "bias": pool.number()})
        x = pool.pick("fi", exact=True)
        if x.array.dtype.kind != "f" and np.abs(x.array.astype(np.float64)).max(initial=0) > 100:
            raise LookupError("integers that float32 does not hold")
        return node(operator, [x], attributes, steps=True)
    return node(operator, [pool.pick(exact=True)], pool.one_of({}, {"alpha": pool.number()}), steps=True, moves=True)


@makes("Clip")
def clip(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi", empty=True)
    bounds: list[Value | Array | None] = []
    for number in (1, 4):
        bound = np.array(number if x.array.dtype.kind == "u" else number - 2, x.array.dtype)
        bounds.append(pool.one_of(None, bound, bound, Value("", bound)))
    return node(operator, [x, *bounds], moves=True)


@makes("Add", "Sub", "Mul")
def arithmetic(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi", empty=True)
    inputs = [x, pool.like(x)]
    if pool.flip(0.3):
        inputs.reverse()
    return node(operator, inputs)


@makes("Div")
def division(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi", exact=True)
    if x.array.dtype.kind == "f":
        return node(operator, [pool.pick(types=[x.array.dtype.name]), pool.like(x)])
    return node(operator, [x, _divisor(pool, x)], steps=True)


def _divisor(pool: Pool, x: Value) -> Value | Array:
    """Neither zero nor -1, which end the process where they divide the smallest integer."""
    array = np.abs(pool.constant(x.array.shape, x.array.dtype, tame=True).astype(np.int64)) + 1
    if x.array.dtype.kind == "i":
        array = array * np.where(pool.random.random(array.shape) < 0.5, -1, 1)
    typed = np.asarray(array).astype(x.array.dtype)
    return typed if pool.flip() else Value("", typed)


@makes("Mod")
def modulo(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi", exact=True)
    floating = x.array.dtype.kind == "f"
    divisor = pool.operand(x.array.shape, x.array.dtype) if floating else _divisor(pool, x)
    return node(operator, [x, divisor], {"fmod": 1 if floating else pool.integer(0, 1)}, steps=True)


@makes("Pow")
def power(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi")
    if x.array.dtype.kind == "f":
        exponent: Any = np.array(pool.one_of(2.0, 3.0, 0.5, -1.0, 0.0), np.float32)
        return node(operator, [x, pool.one_of(exponent, Value("", exponent), pool.like(x))])
    base = pool.pick(types=("int32", "int64"))
    return node(operator, [base, np.array(pool.one_of(0, 1, 2, 3), pool.one_of("int32", "int64", "float32"))])


@makes("Min", "Max", "Sum", "Mean")
def several(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fi" if operator in ("Min", "Max") else "f", empty=True)
    others = [pool.like(x) for _ in range(pool.integer(0, 3))]
    return node(operator, [x, *others], moves=operator in ("Min", "Max"))


@makes("PRelu")
def slope(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("float32", "float32", "float64", "float16", "int32", "int64", "uint32", "uint64"))
    cut = pool.integer(0, x.array.ndim)
    shape = [extent if pool.flip() else 1 for extent in x.array.shape[cut:]]
    return node(operator, [x, pool.operand(shape, x.array.dtype)])


@makes("Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal")
def comparison(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib" if operator == "Equal" else "fi", exact=True, empty=True)
    other = pool.like(x)
    if isinstance(other, Value) and not other.exact:
        raise LookupError("not exact")
    return node(operator, [x, other], steps=True)


@makes("And", "Or", "Xor", "Not")
def logic(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("b")
    return node(operator, [x] if operator == "Not" else [x, pool.like(x)])


@makes("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot")
def bits(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("i")
    return node(operator, [x] if operator == "BitwiseNot" else [x, pool.like(x)])


@makes("BitShift")
def shift(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("uint8", "uint16", "uint32", "uint64"))
    by = pool.random.integers(0, 8 * x.array.dtype.itemsize, x.array.shape).astype(x.array.dtype)
    return node(operator, [x, pool.one_of(by, Value("", by))], {"direction": pool.one_of("LEFT", "RIGHT")})


@makes("Where")
def where(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", empty=True)
    shape = [extent if pool.flip(0.7) else 1 for extent in x.array.shape]
    return node(operator, [pool.fresh(shape, np.bool_), x, pool.like(x)], moves=True)


_CAST = (
    *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.INT8),
    *(TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16),
    *(TensorProto.UINT32, TensorProto.UINT64),
)


@makes("Cast", "CastLike")
def cast(pool: Pool, operator: str) -> Proposal:
    x = pool.pick("fib", exact=True, empty=True)
    if x.array.dtype.kind == "f" and not (np.isfinite(x.array).all() and (np.abs(x.array) < 100).all()):
        to = pool.one_of(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.FLOAT16)
    elif x.array.dtype.kind == "f" and (x.array < 0).any():  # what a negative float is as an unsigned integer is open
        to = pool.one_of(*(kind for kind in _CAST if not TensorProto.DataType.Name(kind).startswith("UINT")))
    else:
        to = pool.one_of(*_CAST)
    if operator == "Cast":
        return node(operator, [x], {"to": int(to)}, steps=True, moves=True)
    from onnx import helper

    like = np.zeros((1,), helper.tensor_dtype_to_np_dtype(int(to)))
    return node(operator, [x, pool.one_of(like, Value("", like))], steps=True, moves=True)


@makes("BitCast")
def bit_cast(pool: Pool, operator: str) -> Proposal:
    pairs = {"float32": TensorProto.INT32, "float64": TensorProto.INT64, "int32": TensorProto.FLOAT}
    pairs |= {"float16": TensorProto.INT16, "int64": TensorProto.UINT64, "uint8": TensorProto.INT8}
    x = pool.pick(types=list(pairs), exact=True)
    return node(operator, [x], {"to": int(pairs[x.array.dtype.name])}, steps=True, moves=True)


@makes("Dropout")
def dropout(pool: Pool, operator: str) -> Proposal:
    ratio = pool.one_of(None, np.array(0.3, np.float32))
    return node(operator, [pool.pick(), ratio], outputs=2, moves=True)
