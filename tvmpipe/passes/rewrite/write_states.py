"""What a step adds to a state that grows is written into the state's buffer, and nothing is copied."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.dataflow import definitions_of, mutated, operator_name
from tvmpipe.passes.kernels.base import shape_of
from tvmpipe.passes.kernels.state_write import LENGTH, STATE_WRITE, state_write

IN_PLACE = "relax.call_tir_inplace"


def write_states(module: Any) -> Any:
    """`module` with writes into states in place of copies that differ from them in a few elements.

    ::

        places = R.broadcast_to(R.add(length, [0, 1, ..]), ...)
        present = R.scatter_elements(past, places, new, axis=2)
        ->
        present = R.call_tir_inplace(state_write, (past, new, length), inplace_indices=[0], ...)

    where `past` is a parameter that nothing else reads, and `length` that of the `LENGTH` attribute.
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    length = length_of(module)
    if length is None:
        return module
    definition, readers = definitions_of(module)
    parameters = set(module["main"].params)

    def writes(call: Any) -> bool:
        """Whether a call writes behind the end of a state."""
        if operator_name(call) != "relax.scatter_elements" or str(call.attrs.reduction) != "update":
            return False
        past, places = call.args[:2]
        if past not in parameters or readers.get(past) != 1:
            return False
        spread = definition.get(places, places)
        if operator_name(spread) != "relax.broadcast_to":
            return False
        added = definition.get(spread.args[0])
        return operator_name(added) == "relax.add" and any(operand.same_as(length) for operand in added.args)

    @mutator
    class Writer(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            if not writes(call):
                return super().visit_call_(call)
            past, _, new = call.args
            shape = shape_of(past)
            axis = int(call.attrs.axis) % len(shape)
            function = state_write(shape, axis, shape_of(new)[axis], str(past.ty.dtype))
            name = self.builder_.add_func(function, STATE_WRITE)
            given = relax.Tuple([self.visit_expr(one) for one in (past, new, length)])
            return relax.op.call_tir_inplace(name, given, [0], past.ty)

    return relax.transform.DeadCodeElimination()(mutated(Writer(module), module))


def length_of(module: Any) -> Any:
    """The parameter that says how many elements states have; None where the model has no such states."""
    attributes = module["main"].attrs
    if LENGTH not in attributes:
        return None
    return module["main"].params[int(attributes[LENGTH])]
