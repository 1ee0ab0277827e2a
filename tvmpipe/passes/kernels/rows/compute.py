"""Softmax and norms of rows: every row is reduced by 16 lanes at once, then across the lanes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvmpipe.passes.kernels import elementwise
from tvmpipe.passes.kernels.base import BLOCK, KERNEL_ATTR, OPAQUE, Legalize, default_legalize, is_float32

ROWS = "rows"  # the block that writes the result
LANES = "rows.lanes"  # a reduction that leaves one value a lane
AXES = "rows.axes"  # annotation of the block that writes the result: how many of its last axes are a row


def legalizations() -> dict[str, Legalize]:
    return {"relax.nn.softmax": _softmax, "relax.nn.layer_norm": _layer_norm}


def _softmax(builder: Any, call: Any) -> Any:
    (x,) = call.args
    rank = len(x.ty.shape) if x.ty.shape is not None else 0
    if not is_float32(x) or int(call.attrs.axis) % max(rank, 1) != rank - 1:
        return default_legalize(builder, call)
    return builder.call_te(softmax, x, primfunc_name_hint="softmax", primfunc_attrs={"op_pattern": OPAQUE})


def _layer_norm(builder: Any, call: Any) -> Any:
    x, scale, shift = call.args
    rank = len(x.ty.shape) if x.ty.shape is not None else 0
    axes = [int(axis) % max(rank, 1) for axis in call.attrs.axes]
    if not is_float32(x, scale, shift) or axes != [rank - 1]:
        return default_legalize(builder, call)
    return builder.call_te(
        layer_norm,
        x,
        scale,
        shift,
        float(call.attrs.epsilon),
        primfunc_name_hint="layer_norm",
        primfunc_attrs={"op_pattern": OPAQUE},
    )


def softmax(x: Any) -> Any:
    """e^(x - max) over its sum, along the last axis."""
    from tvm import te, tirx

    largest = reduce_last_axis(x.shape, lambda *at: x(*at), lambda a, b: tirx.max(a, b), -float("inf"), "largest")
    power = te.compute(x.shape, lambda *at: elementwise.exp(x(*at) - largest(*at[:-1])), name="power")
    total = reduce_last_axis(x.shape, lambda *at: power(*at), lambda a, b: a + b, 0.0, "total")
    return te.compute(x.shape, lambda *at: power(*at) / total(*at[:-1]), name="softmax", attrs={KERNEL_ATTR: ROWS})


def layer_norm(x: Any, scale: Any, shift: Any, epsilon: float) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift along the last axis; two passes, for precision."""
    from tvm import te, tirx

    def add(a: Any, b: Any) -> Any:
        return a + b

    one_over_n = tirx.const(1.0 / int(x.shape[-1]), "float32")
    total = reduce_last_axis(x.shape, lambda *at: x(*at), add, 0.0, "total")
    mean = te.compute(total.shape, lambda *at: total(*at) * one_over_n, name="mean")

    def squared(*at: Any) -> Any:
        centred = x(*at) - mean(*at[:-1])
        return centred * centred

    squares = reduce_last_axis(x.shape, squared, add, 0.0, "squares")
    factor = te.compute(
        squares.shape,
        lambda *at: tirx.const(1.0, "float32") / tirx.sqrt(squares(*at) * one_over_n + tirx.const(epsilon, "float32")),
        name="factor",
    )
    return te.compute(
        x.shape,
        lambda *at: (x(*at) - mean(*at[:-1])) * factor(*at[:-1]) * scale[at[-1]] + shift[at[-1]],
        name="layer_norm",
        attrs={KERNEL_ATTR: ROWS},
    )


def norm(x: Any, *affine: Any, epsilon: float, axes: int, centred: bool, scaled: bool) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift over the last `axes` axes; two passes, for precision.

    Not `centred`, the mean counts as 0 (RMS norm). `affine` is the scale, if `scaled`, then the shift, if there is
    one; each broadcasts to `x`.
    """
    from tvm import te, tirx

    def add(a: Any, b: Any) -> Any:
        return a + b

    one_over_n = tirx.const(1.0 / math.prod(int(extent) for extent in x.shape[-axes:]), "float32")
    mean: Any = None
    if centred:
        total = reduce_last_axis(x.shape, lambda *at: x(*at), add, 0.0, "total", axes)
        mean = te.compute(total.shape, lambda *at: total(*at) * one_over_n, name="mean")

    def deviation(*at: Any) -> Any:
        return x(*at) - mean(*at[:-axes]) if centred else x(*at)

    squares = reduce_last_axis(x.shape, lambda *at: deviation(*at) * deviation(*at), add, 0.0, "squares", axes)
    factor = te.compute(
        squares.shape,
        lambda *at: tirx.const(1.0, "float32") / tirx.sqrt(squares(*at) * one_over_n + tirx.const(epsilon, "float32")),
        name="factor",
    )

    def element(*at: Any) -> Any:
        result = deviation(*at) * factor(*at[:-axes])
        for place, operand in enumerate(affine):
            kept = zip(at[len(at) - len(operand.shape) :], operand.shape, strict=True)
            number = operand(*(0 if int(extent) == 1 else index for index, extent in kept))
            result = result * number if scaled and place == 0 else result + number
        return result

    return te.compute(x.shape, element, name="norm", attrs={KERNEL_ATTR: ROWS, AXES: axes})


def reduce_last_axis(
    shape: Any,
    value: Callable[..., Any],
    combine: Callable[[Any, Any], Any],
    start: float,
    name: str,
    axes: int = 1,
) -> Any:
    """Reduce `value(*indices)` over the last axis: whole groups of 16 by lanes, then the lanes and the remainder.

    With more `axes` than one, over those before the last as well.
    """
    from tvm import te, tirx

    *outer, n = (int(extent) for extent in shape)
    outer, middle = outer[: len(outer) + 1 - axes], outer[len(outer) + 1 - axes :]
    groups, left = divmod(n, BLOCK)
    reducer = tirx.comm_reducer(combine, lambda dtype: tirx.const(start, dtype))

    def between() -> list[Any]:
        return [te.reduce_axis((0, extent), name=f"middle{place}") for place, extent in enumerate(middle)]

    parts = []
    if groups:
        group, lane = te.reduce_axis((0, groups), name="group"), te.reduce_axis((0, BLOCK), name="lane")
        along = between()
        lanes = te.compute(
            (*outer, BLOCK),
            lambda *at: reducer(value(*at[:-1], *along, group * BLOCK + at[-1]), axis=[*along, group]),
            name=f"{name}_lanes",
            attrs={KERNEL_ATTR: LANES},
        )
        parts.append(te.compute(outer, lambda *at: reducer(lanes(*at, lane), axis=[lane]), name=f"{name}_whole"))
    if left:
        rest = te.reduce_axis((0, left), name="rest")
        beside = between()
        parts.append(
            te.compute(
                outer,
                lambda *at: reducer(value(*at, *beside, groups * BLOCK + rest), axis=[*beside, rest]),
                name=f"{name}_rest",
            )
        )
    if len(parts) == 1:
        return parts[0]
    return te.compute(outer, lambda *at: combine(parts[0](*at), parts[1](*at)), name=name)
