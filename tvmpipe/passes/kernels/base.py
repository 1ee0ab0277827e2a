"""What the kernels share: the block size, the marks the schedules look for, and the way back to TVM's own rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvmpipe.passes.kernels.tiles import BLOCK as BLOCK

Legalize = Callable[[Any, Any], Any]
"""(relax.BlockBuilder, call) -> what to compute instead."""

KERNEL_ATTR = "tvmpipe.kernel"  # annotation of the TIR block that a rule of `passes.kernels.schedule` starts from
FLOPS_ATTR = "tvmpipe.flops"  # annotation: useful operations of the block, padding not counted
INSIDE_ATTR = "tvmpipe.inside"  # annotation: what the block makes stays in registers and caches, piece by piece

# TVM's operator patterns, relax/op_attr_types.h
ELEMENTWISE, BROADCAST, INJECTIVE, REDUCTION, OUT_FUSABLE, OPAQUE = 0, 1, 2, 3, 4, 8


def default_legalize(builder: Any, call: Any) -> Any:
    """TVM's own rule for the operator."""
    return call.op.get_attr("FLegalize")(builder, call)


def static_shape(kind: Any) -> tuple[int, ...] | None:
    """The shape of a Relax tensor type, or None for another type or a shape that is not known."""
    from tvm import relax, tirx

    if not isinstance(kind, relax.TensorType) or kind.shape is None:
        return None
    if not all(isinstance(extent, tirx.IntImm) for extent in kind.shape):
        return None
    return tuple(int(extent) for extent in kind.shape)


def is_float32(*expressions: Any) -> bool:
    """Whether all are float32 tensors of static shape."""
    kinds = [expression.ty for expression in expressions]
    return all(static_shape(kind) is not None and str(kind.dtype) == "float32" for kind in kinds)


def shape_of(expression: Any) -> tuple[int, ...]:
    """Static shape of a Relax expression."""
    return tuple(int(extent) for extent in expression.ty.shape)


def constant_of(expression: Any) -> Any:
    """The array of a constant expression, or None."""
    import tvm

    return expression.value.numpy() if isinstance(expression, tvm.ir.GenericConst) else None


def useful_flops(function: Any) -> float:
    """What the kernels in a TIR function say they compute, 0.0 for a function without one."""
    from tvm import s_tir

    schedule = s_tir.Schedule(function)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    return float(sum(int((schedule.get(block).annotations or {}).get(FLOPS_ATTR, 0)) for block in blocks))
