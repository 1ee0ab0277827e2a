"""Which nodes of the ONNX model a value comes from: written into the span of the Relax variable that holds it.

TVM's passes keep a variable's span as long as they keep the variable, print nothing of it, and leave it out of
structural equality, so that names of nodes change no code.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tvmpipe.passes.frontend.dataflow import mutated


class Origin(NamedTuple):
    """A node of the ONNX model: its place in the model, and what people call it (see `node_label`)."""

    place: int
    label: str


Origins = tuple[Origin, ...]
_MARK = "onnx:"


def with_nodes(variable: Any, nodes: Iterable[Origin]) -> Any:
    """A variable of the same name, type and kind that comes from these nodes."""
    return type(variable)(variable.name, variable.ty, _span(tuple(sorted(set(nodes)))))


def nodes_of(variable: Any) -> Origins:
    """The nodes that a variable comes from, in the model's order; () for what no node asked for, as a layout change."""
    return _read(str(variable.span.source_name.name)) if variable.span is not None else ()


def emit_from(builder: Any, value: Any, source: Any, *, output: bool = False) -> Any:
    """`builder.emit` (or `emit_output`) of a value that takes the place of the variable `source`: from the same nodes.

    Its name is the one that `emit` gives.
    """
    from tvm import relax

    made = builder.normalize(value)
    kind, prefix = (relax.Var, "gv") if output else (relax.DataflowVar, "lv")
    variable = kind(builder.get_unique_name(prefix), made.ty, source.span)
    builder.emit_normalized(relax.VarBinding(variable, made))
    return variable


def renamed(module: Any, nodes: Mapping[Any, Origins]) -> Any:
    """`module` whose variables in `main` come from other nodes: those that `nodes` says."""
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Renamer(PyExprMutator):  # type: ignore[misc]
        def visit_var_binding_(self, binding: Any) -> None:
            wanted = nodes.get(binding.var, ())
            if nodes_of(binding.var) == wanted:
                super().visit_var_binding_(binding)
                return
            value = self.visit_expr(binding.value)
            variable = with_nodes(binding.var, wanted)
            self.builder_.emit_normalized(relax.VarBinding(variable, value))
            self.set_var_remap(binding.var, variable)

    variables = (binding.var for block in module["main"].body.blocks for binding in block.bindings)
    if all(nodes_of(variable) == nodes.get(variable, ()) for variable in variables):
        return module
    return mutated(Renamer(module), module)


def _span(nodes: Origins) -> Any:
    import tvm

    return tvm.ir.Span(tvm.ir.SourceName(_MARK + json.dumps(nodes)), 0, 0, 0, 0) if nodes else None


@functools.lru_cache(maxsize=1 << 16)
def _read(text: str) -> Origins:
    if not text.startswith(_MARK):
        return ()  # a place in some source
    return tuple(Origin(place, label) for place, label in json.loads(text.removeprefix(_MARK)))
