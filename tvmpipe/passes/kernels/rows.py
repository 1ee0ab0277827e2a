"""Softmax and layer norm over the last axis: every row is reduced by 16 lanes at once, then across the lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvmpipe.passes.kernels import elementwise
from tvmpipe.passes.kernels.base import BLOCK, KERNEL, OPAQUE, Legalize, default_legalize, is_float32

ROWS = "rows"  # the block that writes the result
LANES = "rows.lanes"  # a reduction that leaves one value a lane


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
    return te.compute(x.shape, lambda *at: power(*at) / total(*at[:-1]), name="softmax", attrs={KERNEL: ROWS})


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
        attrs={KERNEL: ROWS},
    )


def reduce_last_axis(
    shape: Any, value: Callable[..., Any], combine: Callable[[Any, Any], Any], start: float, name: str
) -> Any:
    """Reduce `value(*indices)` over the last axis: whole groups of 16 by lanes, the lanes, what is left over."""
    from tvm import te, tirx

    *outer, n = (int(extent) for extent in shape)
    groups, left = divmod(n, BLOCK)
    reducer = tirx.comm_reducer(combine, lambda dtype: tirx.const(start, dtype))
    parts = []
    if groups:
        group, lane = te.reduce_axis((0, groups), name="group"), te.reduce_axis((0, BLOCK), name="lane")
        lanes = te.compute(
            (*outer, BLOCK),
            lambda *at: reducer(value(*at[:-1], group * BLOCK + at[-1]), axis=[group]),
            name=f"{name}_lanes",
            attrs={KERNEL: LANES},
        )
        parts.append(te.compute(outer, lambda *at: reducer(lanes(*at, lane), axis=[lane]), name=f"{name}_whole"))
    if left:
        rest = te.reduce_axis((0, left), name="rest")
        parts.append(
            te.compute(outer, lambda *at: reducer(value(*at, groups * BLOCK + rest), axis=[rest]), name=f"{name}_rest")
        )
    if len(parts) == 1:
        return parts[0]
    return te.compute(outer, lambda *at: combine(parts[0](*at), parts[1](*at)), name=name)
