"""Keep kernels from being fused with what spreads their result over a larger tensor, such as the gate of an image."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.frontend.dataflow import definitions_of, mutated, operator_name
from tvmpipe.passes.kernels.base import BROADCAST, INJECTIVE, OPAQUE, OUT_FUSABLE, shape_of

_PATTERN = "op_pattern"


def annotate_spreading(module: Any) -> Any:
    """`module` in which no operator that spreads a kernel's result is taken for one that fusion may put behind it.

    ::

        g = R.call_tir(conv2d, (pooled, weight), ...)    # [1, C, 1, 1]
        y = R.call_tir(multiply, (x, g), ...)            # [1, C, H, W], op_pattern 0 (elementwise)
        ->
        y = R.call_tir(multiply1, (x, g), ...)           # the same function, op_pattern 2 (injective)

    A kernel's schedule computes what follows it tile by tile of the kernel's own result; of a larger one it could not.
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    definition, _ = definitions_of(module)

    def pattern(call: Any) -> int:
        if operator_name(call) != "relax.call_tir":
            return OPAQUE
        attrs = module[call.args[0]].attrs
        return int(attrs[_PATTERN]) if attrs is not None and _PATTERN in attrs else OPAQUE

    from_kernel: dict[Any, bool] = {}  # a variable -> whether fusion would put it behind a kernel of its own size
    for variable, value in definition.items():
        kind = pattern(value)
        from_kernel[variable] = kind == OUT_FUSABLE or (
            kind <= BROADCAST
            and any(from_kernel.get(one, False) and _size(one) == _size(variable) for one in value.args[1].fields)
        )

    @mutator
    class Marker(PyExprMutator):  # type: ignore[misc]
        def __init__(self, module: Any) -> None:
            super().__init__(module)
            self.marked: dict[Any, Any] = {}

        def visit_call_(self, call: Any) -> Any:
            visited = super().visit_call_(call)
            if pattern(call) > BROADCAST:
                return visited
            if not any(from_kernel.get(one, False) and _size(one) < _size(call) for one in call.args[1].fields):
                return visited
            gvar = call.args[0]
            if gvar not in self.marked:
                function = module[gvar].with_attr(_PATTERN, INJECTIVE)
                self.marked[gvar] = self.builder_.add_func(function, gvar.name_hint.rstrip("0123456789"))
            arguments = [self.marked[gvar], *visited.args[1:]]
            return relax.Call(visited.op, arguments, visited.attrs, visited.ty_args)

    return mutated(Marker(module), module)


def _size(expression: Any) -> int:
    return math.prod(shape_of(expression))
