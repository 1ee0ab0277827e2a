"""What a step adds to a state that grows is written into the state's buffer, and nothing is copied."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.dataflow import definitions_of, mutated, operator_name
from tvmpipe.passes.kernels.base import constant_of, shape_of
from tvmpipe.passes.kernels.state_write import LENGTH, STATE_WRITE, state_write

Array = NDArray[Any]


def write_states(module: Any) -> Any:
    """`module` with writes into states in place of copies that differ from them in a few elements.

    ::

        places = R.broadcast_to(R.add(length, [0, 1, ..]), ...)
        present = R.scatter_elements(past, places, new, axis=2)
        ->
        present = R.call_tir_inplace(state_write, (past, new, length), inplace_indices=[0], ...)

    where `past` is a parameter that nothing else reads, and `length` that of the `LENGTH` attribute. Where the copy is
    written with conditions, as attention with a cache is imported, zeros behind the end are what the buffer has there:

    ::

        behind = R.where(R.less(places, end), R.gather_elements(new, ...), 0)
        present = R.where(R.less(places, length), past, behind)

    That places follow from the length is found by computing them for some lengths.
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    length = length_of(module)
    if length is None:
        return module
    writes = _Writes(module, length)

    @mutator
    class Writer(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            found = writes.find(call)
            if found is None:
                return super().visit_call_(call)
            past, new, axis = found
            shape = shape_of(past)
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


class _Writes:
    """Finds calls that make a state with a step's elements of one without."""

    def __init__(self, module: Any, length: Any) -> None:
        self._definition, self._readers = definitions_of(module)
        self._parameters = set(module["main"].params)
        self._length = length

    def find(self, call: Any) -> tuple[Any, Any, int] | None:
        """The state, what is new, and along which axis."""
        if operator_name(call) == "relax.scatter_elements":
            return self._scattered(call)
        return self._chosen(call) if operator_name(call) == "relax.where" else None

    def _is_state(self, expr: Any) -> bool:
        return expr in self._parameters and self._readers.get(expr) == 1

    def _scattered(self, call: Any) -> tuple[Any, Any, int] | None:
        past, places, new = call.args
        if str(call.attrs.reduction) != "update" or not self._is_state(past):
            return None
        shape = shape_of(new)
        axis = int(call.attrs.axis) % len(shape)
        if shape[:axis] + shape[axis + 1 :] != shape_of(past)[:axis] + shape_of(past)[axis + 1 :]:
            return None
        steps = _along(np.arange(shape[axis]), axis, len(shape))
        room = shape_of(past)[axis] - shape[axis]
        return (past, new, axis) if self._is(places, lambda length: length + steps, room) else None

    def _chosen(self, call: Any) -> tuple[Any, Any, int] | None:
        """`where(before the end, past, where(in the step, new, 0))`, of a state with an axis for elements."""
        before, past, behind = call.args
        inner: Any = self._definition.get(behind)
        if not self._is_state(past) or operator_name(inner) != "relax.where" or shape_of(past) != shape_of(call):
            return None
        inside, moved, zero = inner.args
        number = constant_of(zero)
        gather: Any = self._definition.get(moved)
        new = gather.args[0] if operator_name(gather) == "relax.gather_elements" else moved
        shape, whole = shape_of(new), shape_of(past)
        if number is None or number.any() or len(shape) != len(whole):
            return None
        axes = [axis for axis, (have, room) in enumerate(zip(shape, whole, strict=True)) if have != room]
        if len(axes) != 1:
            return None
        (axis,) = axes
        step = shape[axis]
        places, room = _along(np.arange(whole[axis]), axis, len(whole)), whole[axis] - step
        same = self._is(before, lambda length: places < length, room)
        same = same and self._is(inside, lambda length: places < length + step, room)
        if gather is not None and operator_name(gather) == "relax.gather_elements":
            same = same and int(gather.attrs.axis) % len(whole) == axis
            same = same and self._is(gather.args[1], lambda length: np.clip(places - length, 0, step - 1), room)
        elif step != 1:
            return None
        return (past, new, axis) if same else None

    def _is(self, expr: Any, wanted: Callable[[int], Array], room: int) -> bool:
        """Whether an expression is what is wanted of it at some lengths up to `room`: its broadcasting left out."""
        for length in sorted({0, min(1, room), room // 2, room}):
            found = self._value(expr, np.int64(length))
            if found is None or not bool(np.all(found == wanted(length))):
                return False
        return True

    def _value(self, expr: Any, length: Any) -> Array | None:
        """An expression of constants and the length, as numpy computes it; None where something else is in it."""
        constant = constant_of(expr)
        if constant is not None:
            return np.asarray(constant)
        if expr.same_as(self._length):
            return np.asarray(length)
        call: Any = self._definition.get(expr)
        name = operator_name(call)
        if name in _BINARY:
            parts = [self._value(operand, length) for operand in call.args[:2]]
            return None if any(part is None for part in parts) else np.asarray(_BINARY[name](*parts))
        if name in ("relax.astype", "relax.sum", "relax.reshape", "relax.expand_dims", "relax.broadcast_to"):
            part = self._value(call.args[0], length)
            if part is None or name == "relax.broadcast_to":
                return part
            if name == "relax.astype":
                return np.asarray(part.astype(str(call.ty.dtype)))
            return (
                part.sum(_axes(call)).reshape(shape_of(call)) if name == "relax.sum" else part.reshape(shape_of(call))
            )
        return None


_BINARY: Mapping[str, Callable[..., Any]] = {
    "relax.add": operator.add,
    "relax.less": operator.lt,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
    "relax.multiply": operator.mul,
    "relax.subtract": operator.sub,
}


def _axes(call: Any) -> tuple[int, ...] | None:
    return None if call.attrs.axis is None else tuple(int(axis) for axis in call.attrs.axis)


def _along(numbers: Array, axis: int, rank: int) -> Array:
    """Numbers along one of so many axes."""
    return numbers.reshape([-1 if place == axis else 1 for place in range(rank)])
