"""Keep the weights of a half model as halves: functions read them so, and convert each number where they load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvmpipe.passes.frontend.dataflow import mutated, operator_name
from tvmpipe.passes.kernels.base import constant_of
from tvmpipe.passes.kernels.half_weights import half_types, narrowed, widened


def narrow_weights(module: Any) -> Any:
    """`module` whose large constants are of the half type of the model's weights where that holds all their numbers.

    ::

        y = R.call_tir(matmul, (x, weight), ...)      # reads weight[k, j], float32
        ->
        y = R.call_tir(matmul1, (x, half), ...)       # reads T.Cast("float32", half[k, j])

    Weights that were computed with, such as those of a scaled sum, are not numbers of that type any more and stay.
    A model without halves stays as it is.
    """
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    halves = half_types(module)
    if not halves:
        return module

    @mutator
    class Narrower(PyExprMutator):  # type: ignore[misc]
        def __init__(self, module: Any) -> None:
            super().__init__(module)
            self.narrow: dict[Any, Any] = {}  # a constant -> the same of a half type, None where there is none
            self.variants: dict[Any, Any] = {}  # a function and the types of its parameters -> the function for them

        def visit_call_(self, call: Any) -> Any:
            visited = super().visit_call_(call)
            if operator_name(visited) != "relax.call_tir":
                return visited
            function, fields = visited.args[0], list(visited.args[1].fields)
            found = {place: half for place, one in enumerate(fields) if (half := self._half(one)) is not None}
            types = {place: str(half.ty.dtype) for place, half in found.items()}
            variant = self._variant(function, types) if types else None
            if variant is None:
                return visited
            reads = relax.Tuple([found.get(place, one) for place, one in enumerate(fields)])
            return tvm.ir.Call(visited.op, [variant, reads, *visited.args[2:]], visited.attrs, visited.ty_args)

        def _half(self, expression: Any) -> Any:
            array = constant_of(expression)
            if array is None:
                return None
            if expression not in self.narrow:
                half = narrowed(array, halves)
                self.narrow[expression] = None if half is None else relax.const(half, str(half.dtype))
            return self.narrow[expression]

        def _variant(self, function: Any, types: Mapping[int, str]) -> Any:
            key = function, tuple(sorted(types.items()))
            if key not in self.variants:
                made = reading_halves(module[function], types)
                name = function.name_hint.rstrip("0123456789")
                self.variants[key] = None if made is None else self.builder_.add_func(made, name)
            return self.variants[key]

    return mutated(Narrower(module), module)


def reading_halves(function: Any, types: Mapping[int, str]) -> Any:
    """A TIR function whose parameters at some places are of other types, `types`, each number widened where it is read.

    None where the function does more with one of them than to read its numbers.
    """
    import tvm
    from tvm import tirx
    from tvm_ffi import structural_map

    old = {function.params[place]: dtype for place, dtype in types.items()}
    if _others_than_loads(function, list(old)):
        return None
    new = {one: tirx.decl_buffer(one.ty.shape, dtype, one.name) for one, dtype in old.items()}
    known = {**new, **{one: one for one in new.values()}}

    def load(one: Any) -> Any:
        buffer = known.get(one.source)
        return one if buffer is None else widened(tirx.BufferLoad(buffer, one.indices))

    def variable(one: Any) -> Any:
        return new.get(one, one)

    made = structural_map(function, [(tvm.ir.expr.TensorLoad, load), (tvm.ir.Var, variable)])
    return tirx.PrimFunc(made.params, made.body, attrs=made.attrs)  # which finds its own type


def _others_than_loads(function: Any, buffers: list[Any]) -> bool:
    """Whether a function hands one of these buffers on, or takes an address in it."""
    from tvm_ffi import structural_walk

    found: list[Any] = []
    structural_walk(function.body, found.append)
    calls = [node for node in found if type(node).__name__ == "Call"]
    return (
        any(type(node).__name__ == "MatchBufferRegion" for node in found)
        or any(str(getattr(call.op, "name", "")).endswith("address_of") for call in calls)
        or any(argument.same_as(buffer) for call in calls for argument in call.args for buffer in buffers)
    )
