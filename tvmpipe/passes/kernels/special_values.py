"""Operators that TVM legalizes with other results than ONNX wants for infinities and NaN.

TVM starts a maximum from the lowest finite number, so that a row of -inf gives that number and not -inf; masked
attention compares the result with -inf. And its Relu, Clip, Max, Min and Sign make a number of NaN, so that a diverged
network looks healthy. Here NaN passes, as in onnx's reference implementation, by comparisons that it fails: TVM's
`isnan` makes a loop scalar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tvmpipe.passes.kernels.base import Legalize, constant_of, default_legalize, static_shape


def legalizations() -> dict[str, Legalize]:
    """What `LegalizeOps` is to use instead, by operator."""
    return {
        "relax.max": _reduction(_larger, -math.inf),
        "relax.min": _reduction(_smaller, math.inf),
        "relax.argmax": _place_of(lambda a, b: a > b, -math.inf),
        "relax.argmin": _place_of(lambda a, b: a < b, math.inf),
        "relax.maximum": _of_two(_larger, _at_least),
        "relax.minimum": _of_two(_smaller, _at_most),
        "relax.clip": _clip,
        "relax.sign": _unary("sign", _sign),
        "relax.nn.relu": _unary("relu", _relu),
    }


def _like(number: float, x: Any) -> Any:
    from tvm import tirx

    return tirx.const(number, str(x.ty))


def _is_float(kind: Any) -> bool:
    return "float" in str(kind)


def _is_number(x: Any) -> Any:
    """False for NaN alone, as long as nobody negates it: TVM takes `x > y` for the opposite, and `x == x` for true."""
    return x <= _like(math.inf, x)


def _at_least(x: Any, bound: Any) -> Any:
    """The maximum, NaN where `x` is; `bound` is not. One instruction where the processor has a maximum.

    LLVM is given `bound > x ? bound : x`, in which NaN fails the comparison. `x` stands in it once: written as a
    choice, an epilogue of two bounds would count as too costly to be unrolled.
    """
    from tvm import tirx

    return tirx.max(bound, x)


def _at_most(x: Any, bound: Any) -> Any:
    from tvm import tirx

    return tirx.min(bound, x)


def _larger(a: Any, b: Any) -> Any:
    """The maximum, NaN where one of both is."""
    from tvm import tirx

    return tirx.Select(_is_number(a), tirx.Select(a > b, a, b), a) if _is_float(a.ty) else tirx.max(a, b)


def _smaller(a: Any, b: Any) -> Any:
    from tvm import tirx

    return tirx.Select(_is_number(a), tirx.Select(a < b, a, b), a) if _is_float(a.ty) else tirx.min(a, b)


def _relu(x: Any) -> Any:
    from tvm import tirx

    return tirx.Select(x < _like(0, x), _like(0, x), x)


def _sign(x: Any) -> Any:
    from tvm import tirx

    below = x if str(x.ty).startswith("uint") else tirx.Select(x < _like(0, x), _like(-1, x), x)
    return tirx.Select(x > _like(0, x), _like(1, x), below)


def _first(start: float, dtype: str) -> Any:
    """What a reduction begins with: an infinity, or the integer that is nearest to it."""
    from tvm import tirx

    if _is_float(dtype):
        return tirx.const(start, dtype)
    return tirx.min_value(dtype) if start < 0 else tirx.max_value(dtype)


def _unary(name: str, rule: Callable[[Any], Any]) -> Legalize:
    def legalize(builder: Any, call: Any) -> Any:
        from tvm import te

        def compute(x: Any) -> Any:
            return te.compute(x.shape, lambda *at: rule(x(*at)), name=name)

        return builder.call_te(compute, call.args[0], primfunc_name_hint=name)

    return legalize


def _of_two(both: Callable[[Any, Any], Any], bounded: Callable[[Any, Any], Any]) -> Legalize:
    """The extreme of two tensors; `bounded` where the second is known not to be NaN."""

    def legalize(builder: Any, call: Any) -> Any:
        from tvm import te

        operands = list(call.args)
        shapes = [static_shape(operand.ty) for operand in operands]
        if None in shapes or not _is_float(operands[0].ty.dtype):
            return default_legalize(builder, call)
        constants = [constant_of(operand) for operand in operands]
        known = [array is not None and not np.isnan(array).any() for array in constants]
        if known[0]:
            operands.reverse()
        rule = bounded if any(known) else both
        shape = tuple(int(extent) for extent in call.ty.shape)

        def compute(a: Any, b: Any, number: float = 0.0) -> Any:
            def element(*at: Any) -> Any:
                left = _broadcast(a, at, shape)
                return rule(left, _like(number, left) if b is None else _broadcast(b, at, shape))

            return te.compute(shape, element, name="extreme")

        name = call.op.name.removeprefix("relax.")
        bound = constant_of(operands[1])
        if any(known) and bound.size == 1:  # a number in the code, not a tensor to be read
            number = float(bound.reshape(()))
            return builder.call_te(lambda a: compute(a, None, number), operands[0], primfunc_name_hint=name)
        return builder.call_te(compute, *operands, primfunc_name_hint=name)

    return legalize


def _broadcast(x: Any, at: Sequence[Any], shape: Sequence[int]) -> Any:
    """The element of `x` at a place of a tensor of `shape` that it is broadcast to.

    Where nothing is broadcast the place is the same, an axis of one too: TVM fuses no other function as elementwise.
    """
    rank = len(x.shape)
    axes = zip(x.shape, at[len(at) - rank :], shape[len(shape) - rank :], strict=True)
    return x(*(0 if int(extent) == 1 and whole > 1 else place for extent, place, whole in axes))


def _clip(builder: Any, call: Any) -> Any:
    from tvm import te

    x, low, high = call.args
    if not _is_float(x.ty.dtype):
        return default_legalize(builder, call)
    bounds = [float(bound.value) for bound in (low, high)]

    def compute(x: Any) -> Any:
        def element(*at: Any) -> Any:
            value = x(*at)
            return _at_most(_at_least(value, _like(bounds[0], value)), _like(bounds[1], value))

        return te.compute(x.shape, element, name="clip")

    return builder.call_te(compute, x, primfunc_name_hint="clip")


def _axes_and_shape(x: Any, axis: Any, keepdims: bool) -> tuple[dict[int, Any], list[Any], Callable[..., list[Any]]]:
    """The reduction's variables by axis, the shape of its result, and the place in `x` of one in the result."""
    from tvm import te

    rank = len(x.shape)
    axes = range(rank) if axis is None else sorted(int(a) % rank for a in axis)
    variables = {a: te.reduce_axis((0, x.shape[a]), name=f"k{a}") for a in axes}
    kept = [a for a in range(rank) if a not in variables]
    shape = [1 if a in variables else x.shape[a] for a in range(rank) if keepdims or a not in variables]

    def place(*indices: Any) -> list[Any]:
        given = dict(zip(range(rank) if keepdims else kept, indices, strict=True))
        return [variables.get(a, given.get(a)) for a in range(rank)]

    return variables, shape, place


def _reduction(combine: Callable[[Any, Any], Any], start: float) -> Legalize:
    def compute(x: Any, axis: Any, keepdims: bool) -> Any:
        from tvm import te, tirx

        reduce = tirx.comm_reducer(combine, lambda dtype: _first(start, dtype))
        variables, shape, place = _axes_and_shape(x, axis, keepdims)
        over = list(variables.values())
        return te.compute(shape, lambda *at: reduce(x(*place(*at)), axis=over), name="extreme")

    return lambda builder, call: builder.call_te(compute, call.args[0], call.attrs.axis, call.attrs.keepdims)


def _place_of(better: Callable[[Any, Any], Any], start: float) -> Legalize:
    """The first place of the extreme along an axis, or of NaN where there is one; TVM's is -1 of infinities alone."""

    def combine(left: Sequence[Any], right: Sequence[Any]) -> tuple[Any, Any]:
        from tvm import tirx

        (place, value), (other, new) = left, right
        ahead = tirx.Or(better(new, value), tirx.And(new.equal(value), other < place))
        if _is_float(value.ty):  # with `isnan` the vectorised loop mixes up its lanes
            none, one = (tirx.const(number, "int32") for number in (0, 1))
            spoilt, was = (tirx.Select(_is_number(number), none, one) for number in (new, value))
            ahead = tirx.Or(spoilt > was, ahead)
        ahead = tirx.Or(place < 0, tirx.And(other >= 0, ahead))
        return tirx.Select(ahead, other, place), tirx.Select(ahead, new, value)

    def compute(x: Any, axis: Any, keepdims: bool) -> Any:
        from tvm import te, tirx

        reduce = tirx.comm_reducer(
            combine, lambda place, value: (tirx.const(-1, place), _first(start, value)), name="place_of"
        )
        variables, shape, place = _axes_and_shape(x, [axis], keepdims)
        ((_, variable),) = variables.items()

        def element(*at: Any) -> Any:
            return reduce((tirx.Cast("int64", variable.var), x(*place(*at))), axis=variable)

        places, _ = te.compute(shape, element, name="place_of")
        return te.compute(shape, lambda *at: places(*at), name="place")

    def legalize(builder: Any, call: Any) -> Any:
        if call.attrs.axis is None:
            return default_legalize(builder, call)
        name = call.op.name.removeprefix("relax.")
        return builder.call_te(
            compute, call.args[0], int(call.attrs.axis), call.attrs.keepdims, primfunc_name_hint=name
        )

    return legalize
