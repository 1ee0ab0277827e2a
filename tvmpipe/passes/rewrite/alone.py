"""Which expressions TVM cannot lower: each of an imported module that could not be lowered is tried alone."""

from __future__ import annotations

import logging
from typing import Any

from tvmpipe.errors import UnsupportedModelError, raised_by_tvm, reason_of
from tvmpipe.passes.frontend.dataflow import operator_name
from tvmpipe.passes.frontend.onnx_nodes import nodes_of
from tvmpipe.passes.graph.primitives import map_tensors
from tvmpipe.passes.rewrite.order import apply_rewrites

logger = logging.getLogger(__name__)


def refused_nodes(module: Any) -> dict[str, str]:
    """Labels of the ONNX nodes behind expressions of `main` that TVM raises for when they are lowered alone -> why.

    What a rewrite here raises is a fault, which nothing hides: such an expression is none of these. Nor is one that no
    ONNX node asked for.
    """
    found: dict[str, str] = {}
    bindings = [binding for block in module["main"].body.blocks for binding in block.bindings]
    for binding in bindings:
        labels = [node.label for node in nodes_of(binding.var)]
        if not labels or not operator_name(binding.value):
            continue
        try:
            apply_rewrites(_alone(binding.value, module), "")
        except UnsupportedModelError as error:
            if error.__cause__ is None or not raised_by_tvm(error.__cause__):
                continue
            nodes = ", ".join(map(repr, labels))
            operator = operator_name(binding.value).removeprefix("relax.")
            why = f"TVM cannot lower node {nodes} ({operator}): {reason_of(error.__cause__)}"
            logger.warning("%s", why)
            found.update(dict.fromkeys(labels, why))
    return found


def _alone(call: Any, module: Any) -> Any:
    """A module whose `main` is one expression, of the variables that it reads."""
    import tvm
    from tvm import relax

    functions = {gvar: function for gvar, function in module.functions.items() if gvar.name_hint != "main"}
    own = {read: relax.Var(read.name, read.ty) for read in relax.analysis.free_vars(call)}
    arguments = [map_tensors(argument, own.__getitem__, lambda constant: constant) for argument in call.args]
    builder = relax.BlockBuilder(tvm.IRModule(functions))
    with builder.function("main", list(own.values())):
        with builder.dataflow():
            made = builder.emit(tvm.ir.Call(call.op, arguments, call.attrs, call.ty_args))
            result = builder.emit_output(made)
        builder.emit_func_output(result)
    return builder.get()
