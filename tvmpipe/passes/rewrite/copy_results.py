"""Results that need no computation, inputs and constants, are copied: what a plan places are primitives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvmpipe.passes.frontend.dataflow import mutated
from tvmpipe.passes.graph.primitives import OPERATORS


def copy_results(module: Any) -> Any:
    """`module` (of primitives) in which a primitive that depends on an input makes every result of `main`.

    ::

        gv = a, x, R.const([1, 2])
        ->
        lv1 = copy(x)
        lv2 = copy1(R.const([1, 2]), x)
        gv = a, lv1, lv2

    The copy of a constant reads the smallest input as well, though no element of it, so that it is made once a sample.
    A model without inputs stays as it is.
    """
    from tvm import relax, te
    from tvm.relax.expr_functor import PyExprMutator, mutator

    module = _with_bound_result(module)
    main = module["main"]
    before = {gvar.name_hint for gvar in module.get_global_vars()}
    result, sources = main.body.body, _Sources(main)
    if not main.params or all(sources.computed(field) for field in sources.fields(result)):
        return module
    smallest = min(main.params, key=lambda one: math.prod(int(extent) for extent in one.ty.shape.values))

    copies: dict[Any, Any] = {}

    @mutator
    class Copier(PyExprMutator):  # type: ignore[misc]
        def visit_var_binding_(self, binding: Any) -> None:
            if not binding.var.same_as(result):
                super().visit_var_binding_(binding)
                return
            copied = [self.copy(field) for field in sources.fields(result)]
            value = relax.Tuple(copied) if isinstance(binding.var.ty, relax.TupleType) else copied[0]
            variable = self.builder_.emit_output(value)
            self.set_var_remap(binding.var, variable)

        def copy(self, field: Any) -> Any:
            if sources.computed(field):
                return self.visit_expr(field)
            if field not in copies:
                read = [] if sources.depends(field) else [smallest]
                arguments = [self.visit_expr(one) for one in (field, *read)]
                call = self.builder_.call_te(copied, *arguments, primfunc_name_hint="copy")
                copies[field] = self.builder_.emit(call)
            return copies[field]

    def copied(value: Any, *_: Any) -> Any:
        return te.compute(value.shape, lambda *at: value(*at), name="copy")

    made = mutated(Copier(module), module)
    added = {gvar.name_hint: ("copy",) for gvar in made.get_global_vars() if gvar.name_hint not in before}
    made["main"] = made["main"].with_attr(OPERATORS, {**dict(main.attrs[OPERATORS]), **added})
    return made


def _with_bound_result(module: Any) -> Any:
    """The module with a variable for what `main` returns, which may be a parameter or a constant itself."""
    from tvm import relax

    main = module["main"]
    result = main.body.body
    if any(binding.var.same_as(result) for block in main.body.blocks for binding in block.bindings):
        return module
    variable = relax.Var("gv", result.ty)
    block = relax.DataflowBlock([relax.VarBinding(variable, result)])
    body = relax.SeqExpr([*main.body.blocks, block], variable)
    made = module.clone()
    made["main"] = relax.Function(main.params, body, main.ret_ty, attrs=main.attrs)
    return made


class _Sources:
    """Where the values of `main` come from."""

    def __init__(self, main: Any) -> None:
        self._made = {binding.var: binding.value for block in main.body.blocks for binding in block.bindings}
        self._depends: dict[Any, bool] = {}
        for variable, value in self._made.items():
            self._depends[variable] = self.depends(value)

    def fields(self, result: Any) -> Sequence[Any]:
        """What `main` returns, an expression for each output or, where one call makes all, one."""
        from tvm import relax

        value = self._value(result)
        return list(value.fields) if isinstance(value, relax.Tuple) else [self._made.get(result, result)]

    def computed(self, field: Any) -> bool:
        """Whether some call makes a value, of what depends on inputs."""
        from tvm import relax

        value = self._value(field)
        return not isinstance(value, relax.Var) and self.depends(field)

    def depends(self, expr: Any) -> bool:
        """Whether a value depends on an input."""
        import tvm
        from tvm import relax

        if isinstance(expr, relax.Var):
            return self._depends.get(expr, True)
        if isinstance(expr, relax.Tuple):
            return any(self.depends(field) for field in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self.depends(expr.tuple_value)
        if isinstance(expr, tvm.ir.Call):
            return any(self.depends(one) for one in expr.args)
        return False

    def _value(self, expr: Any) -> Any:
        """What a variable stands for: a call, a constant, a tuple, a parameter."""
        from tvm import relax

        while isinstance(expr, relax.Var) and expr in self._made:
            expr = self._made[expr]
        return expr
