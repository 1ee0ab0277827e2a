"""Numbers are moved, and the largest of them chosen, as 8-bit integers: they are made real as late as possible."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.dataflow import calls_any, mutated, operator_name
from tvmpipe.passes.frontend.onnx_nodes import emit_from
from tvmpipe.passes.kernels.base import constant_of, shape_of
from tvmpipe.passes.rewrite.integer_operands import dequantising

_CHOOSING = frozenset(
    f"relax.{name}"
    for name in (
        *("reshape", "expand_dims", "squeeze", "flatten", "strided_slice", "take", "broadcast_to", "repeat", "tile"),
        *("flip", "nn.max_pool1d", "nn.max_pool2d", "nn.max_pool3d"),
    )
)
"""Operators `f` whose results are numbers of their first argument: `f(scale * (x - z))` is `scale * (f(x) - z)`."""


def delay_dequantisation(module: Any) -> Any:
    """`module` with operators that only choose among numbers before those that dequantise them.

    ::

        a = R.dequantize(x, scale, zero)
        b = R.nn.max_pool2d(a)
        y = R.quantize(b, scale, zero)
        ->
        y = R.nn.max_pool2d(x)

    Scales and zero points are one number, or one for each place on an axis of what is transposed.
    """
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    if not calls_any(module, ("relax.dequantize",)):
        return module

    @mutator
    class Delayer(PyExprMutator):  # type: ignore[misc]
        def visit_var_binding_(self, binding: Any) -> None:
            name = operator_name(binding.value)
            made = None
            if name in _CHOOSING or name in ("relax.permute_dims", "relax.concat", "relax.quantize"):
                made = self._delayed(self.visit_expr(binding.value), name, binding.var)
            if made is None:
                super().visit_var_binding_(binding)
                return
            output = not isinstance(binding.var, relax.DataflowVar)
            if output or not isinstance(made, relax.Var):
                made = emit_from(self.builder_, made, binding.var, output=output)
            self.set_var_remap(binding.var, made)

        def _delayed(self, call: Any, name: str, source: Any) -> Any:
            """What a call is where the operator that dequantises what it reads comes after it, or None."""
            if name == "relax.concat":
                parts = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else ()
                before = [dequantising(self.builder_, part) for part in parts]
                if not before or any(one is None or not _equal(one, before[0], 0) for one in before):
                    return None
                joined = relax.Tuple([one.args[0] for one in before])
                return self._dequantised(before[0], _with_first(call, joined), source)
            first = dequantising(self.builder_, call.args[0])
            if first is None:
                return None
            if name == "relax.quantize":  # nothing is left of both where they are inverse
                same = _equal(first, call, int(first.attrs.axis)) and first.args[0].ty.dtype == call.ty.dtype
                return first.args[0] if same and isinstance(first.args[0], relax.Var) else None
            if name == "relax.permute_dims":
                return self._transposed(call, first, source)
            return self._dequantised(first, _with_first(call, first.args[0]), source) if _is_single(first) else None

        def _transposed(self, call: Any, first: Any, source: Any) -> Any:
            rank = len(shape_of(call))
            axes = [int(axis) % rank for axis in call.attrs.axes or reversed(range(rank))]
            array = constant_of(first.args[0])
            inner = _with_first(call, first.args[0])
            if array is not None:
                inner = relax.const(np.ascontiguousarray(array.transpose(axes)), str(array.dtype))
            return self._dequantised(first, inner, source, axes.index(int(first.attrs.axis) % rank))

        def _dequantised(self, like: Any, integers: Any, source: Any, axis: int = 0) -> Any:
            """What chooses among integers, and their dequantisation by the parameters of another."""
            if not isinstance(integers, tvm.ir.GenericConst):
                integers = emit_from(self.builder_, integers, source)
            _, scale, zero = like.args
            return relax.op.dequantize(integers, scale, zero, axis, str(like.attrs.out_dtype))

    # Nodes of what is read no more join those of what stands in its place.
    return relax.transform.DeadCodeElimination()(mutated(Delayer(module), module))


def _with_first(call: Any, argument: Any) -> Any:
    import tvm

    return tvm.ir.Call(call.op, [argument, *call.args[1:]], call.attrs, call.ty_args)


def _is_single(call: Any) -> bool:
    """Whether scale and zero point are one number each."""
    return not any(shape_of(parameter) for parameter in call.args[1:])


def _equal(one: Any, other: Any, axis: int) -> bool:
    """Whether two calls have the same known scale and zero point, of one number or along `axis`."""
    for left, right in zip(one.args[1:], other.args[1:], strict=True):
        numbers = constant_of(left), constant_of(right)
        if any(number is None for number in numbers) or not np.array_equal(*numbers) or left.ty.dtype != right.ty.dtype:
            return False
    return _is_single(one) or (axis != 0 and axis == int(other.attrs.axis))
