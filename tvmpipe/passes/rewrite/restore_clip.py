"""Clip as Relax operators: TVM's importer writes it as loops at once, which no pass over operators can read."""

from __future__ import annotations

from typing import Any


def restore_clip(module: Any) -> Any:
    """`module` with `relax.maximum` and `relax.minimum` where the importer emitted a TIR function for them."""
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    call_tir = tvm.ir.Op.get("relax.call_tir")
    operators = {"maximum": relax.op.maximum, "minimum": relax.op.minimum}

    @mutator
    class Restore(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            if call.op != call_tir:
                return call
            operator = operators.get(call.args[0].name_hint.rstrip("0123456789"))
            return operator(*call.args[1].fields) if operator and len(call.args[1].fields) == 2 else call

    rewriter = Restore(module)
    module["main"] = rewriter.visit_expr(module["main"])
    return module
