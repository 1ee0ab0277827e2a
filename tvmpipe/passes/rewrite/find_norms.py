"""Find norms of rows, as operators or in the pieces that ONNX and exporters write, and make one primitive of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from tvmpipe.passes.frontend.dataflow import definitions_of, mutated, operator_name
from tvmpipe.passes.frontend.onnx_nodes import emit_from
from tvmpipe.passes.kernels.base import BLOCK, OPAQUE, constant_of, is_float32, shape_of
from tvmpipe.passes.kernels.rows.compute import norm


@dataclass(frozen=True)
class _Norm:
    """A norm of `x` over its axes from `first` on, and, with `groups`, over as many groups of axis 1."""

    x: Any
    first: int
    epsilon: float
    centred: bool = True
    groups: int = 0
    scale: Any = None
    shift: Any = None


def find_norms(module: Any) -> Any:
    """`module` with every RMS, group and instance norm of `main` as the call of one function.

    A layer norm in pieces, or over several axes, becomes `relax.nn.layer_norm` of the last axis.
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    definition, readers = definitions_of(module)
    reader = _Reader(definition)
    found: dict[Any, _Norm] = {}
    inside: set[Any] = set()
    for variable in reversed(definition):
        if variable not in inside:
            one, parts = reader.read(definition[variable])
            if one is not None:
                found[variable] = one
                inside.update(part for part in parts if readers.get(part) == 1)

    @mutator
    class Fuser(PyExprMutator):  # type: ignore[misc]
        def visit_var_binding_(self, binding: Any) -> None:
            one = found.get(binding.var)
            if one is None:
                super().visit_var_binding_(binding)
                return
            tensors = {"x": one.x, "scale": one.scale, "shift": one.shift}
            seen = {name: self.visit_expr(tensor) for name, tensor in tensors.items() if tensor is not None}
            self.set_var_remap(binding.var, _emit(self.builder_, replace(one, **seen), binding.var))

    return relax.transform.DeadCodeElimination()(mutated(Fuser(module), module))


@dataclass(frozen=True)
class _Reader:
    """Reads norms off the calls that define variables."""

    definition: dict[Any, Any]

    def read(self, value: Any) -> tuple[_Norm | None, list[Any]]:
        """The norm that `value` ends, and the variables between the norm itself and its scale and shift."""
        for at, shift in _orders(value, "relax.add"):
            one, parts = self._scaled(self._made(at))
            if one is not None and one.shift is None and _operand(one, shift) is not None:
                return replace(one, shift=shift), [*parts, at]
        return self._scaled(value)

    def _scaled(self, value: Any) -> tuple[_Norm | None, list[Any]]:
        whole = self._core(value)
        if whole is not None:
            return whole, []
        for at, scale in _orders(value, "relax.multiply"):
            one = self._core(self._made(at))
            if one is not None and one.scale is None and _operand(one, scale) is not None:
                return replace(one, scale=scale), [at]
        return None, []

    def _made(self, expression: Any) -> Any:
        """The value of a variable, or the expression itself."""
        from tvm import relax

        return self.definition.get(expression, expression) if isinstance(expression, relax.Var) else expression

    def _core(self, value: Any) -> _Norm | None:
        """A norm without scale and shift unless they are arguments of its operator."""
        name = operator_name(value)
        if name in ("relax.divide", "relax.multiply"):
            return self._pieces(value, name)
        if name not in ("relax.nn.layer_norm", "relax.nn.rms_norm", "relax.nn.group_norm") or not is_float32(
            *value.args
        ):
            return None
        x, *affine = value.args
        rank, attrs = len(shape_of(x)), value.attrs
        axes = [int(axis) % rank for axis in attrs.axes]
        one = _Norm(x, rank - len(axes), float(attrs.epsilon))
        if axes != list(range(one.first, rank)):
            return None
        if name == "relax.nn.group_norm":
            if int(attrs.channel_axis) % rank != 1 or one.first != 2:
                return None
            one = replace(one, groups=int(attrs.num_groups))
        elif name == "relax.nn.layer_norm":
            if len(axes) == 1:
                return None
        else:
            return replace(one, centred=False, scale=affine[0])
        scale, shift = (
            operand if used else None for operand, used in zip(affine, (attrs.scale, attrs.center), strict=True)
        )
        return replace(one, scale=scale, shift=shift)

    def _pieces(self, value: Any, name: str) -> _Norm | None:
        """`base / sqrt(mean + epsilon)`, or the product of `base` and the root's reciprocal."""
        for base, other in [tuple(value.args)] if name == "relax.divide" else _orders(value, name):
            inner = other if name == "relax.divide" else self._reciprocal(other)
            inner = None if inner is None else self._root(inner)
            found = None if inner is None else self._mean_square(base, inner)
            if found is not None and is_float32(found.x):
                return found
        return None

    def _reciprocal(self, expression: Any) -> Any:
        made = self._made(expression)
        one = _number(made.args[0]) if operator_name(made) == "relax.divide" else None
        return made.args[1] if one == 1.0 else None

    def _root(self, expression: Any) -> Any:
        made = self._made(expression)
        if operator_name(made) == "relax.sqrt" or (
            operator_name(made) == "relax.power" and _number(made.args[1]) == 0.5
        ):
            return made.args[0]
        return None

    def _mean_square(self, base: Any, inner: Any) -> _Norm | None:
        """The norm whose `inner` is the mean square of `base` plus epsilon."""
        for variance, other in _orders(self._made(inner), "relax.add"):
            epsilon, mean = _number(other), self._made(variance)
            first = _last_axes(mean)
            if epsilon is None or first is None:
                continue
            difference = self._made(base)
            x = difference.args[0] if operator_name(difference) == "relax.subtract" else None
            average = None if x is None else self._made(difference.args[1])
            centred = average is not None and operator_name(average) == "relax.mean" and average.args[0].same_as(x)
            if centred and _last_axes(average) != first:
                continue
            if operator_name(mean) == "relax.variance" and centred and mean.args[0].same_as(x):
                return _Norm(x, first, epsilon)
            if operator_name(mean) == "relax.mean" and self._is_square(mean.args[0], base):
                return _Norm(x if centred else base, first, epsilon, centred=centred)
        return None

    def _is_square(self, expression: Any, base: Any) -> bool:
        made = self._made(expression)
        if operator_name(made) == "relax.power":
            return bool(made.args[0].same_as(base)) and _number(made.args[1]) == 2.0
        return operator_name(made) == "relax.multiply" and all(argument.same_as(base) for argument in made.args)


def _emit(builder: Any, one: _Norm, source: Any) -> Any:
    """Views of the operands in which all rows are alike, the norm of them, and a view of the shape of `source`.

    Only the norm itself comes from the ONNX nodes of `source`.
    """
    from tvm import relax

    output = not isinstance(source, relax.DataflowVar)
    view, axes = _view(one)
    operands = []
    for tensor in (one.scale, one.shift):
        if tensor is not None:
            shape = _operand(one, tensor)
            assert shape is not None
            for step in shape:
                tensor = _viewed(builder, tensor, step)
            operands.append(tensor)
    x = _viewed(builder, one.x, view)
    if axes == 1 and one.centred and len(operands) == 2 and all(shape_of(tensor) == view[-1:] for tensor in operands):
        normed = relax.op.nn.layer_norm(x, *operands, axes=[-1], epsilon=one.epsilon)
    else:
        name = "rms_norm" if not one.centred else "group_norm" if one.groups else "instance_norm"
        normed = builder.call_te(
            lambda *tensors: norm(
                *tensors, epsilon=one.epsilon, axes=axes, centred=one.centred, scaled=one.scale is not None
            ),
            x,
            *operands,
            primfunc_name_hint=name,
            primfunc_attrs={"op_pattern": OPAQUE},
        )
    result = shape_of(source)
    if view == result:
        return emit_from(builder, normed, source, output=output)
    reshaped = relax.op.reshape(emit_from(builder, normed, source), result)
    return builder.emit_output(reshaped) if output else builder.emit(reshaped)


def _viewed(builder: Any, tensor: Any, shape: tuple[int, ...]) -> Any:
    """`tensor` reshaped, or broadcast where it has fewer elements."""
    from tvm import relax

    have = shape_of(tensor)
    if have == shape:
        return tensor
    change = relax.op.reshape if math.prod(have) == math.prod(shape) else relax.op.broadcast_to
    return builder.emit(change(tensor, relax.ShapeExpr(shape)))


def _view(one: _Norm) -> tuple[tuple[int, ...], int]:
    """The shape to see `x` in, and how many of its last axes are a row."""
    shape = shape_of(one.x)
    if not one.groups:
        return (*shape[: one.first], math.prod(shape[one.first :])), 1
    batch, channels, size = shape[0], shape[1], math.prod(shape[2:])
    if size < BLOCK:  # too short for lanes: channels and places as one axis
        return (batch, one.groups, channels // one.groups * size), 1
    return (batch, one.groups, channels // one.groups, size), 2


def _operand(one: _Norm, tensor: Any) -> list[tuple[int, ...]] | None:
    """The shapes by which a scale or shift comes to broadcast to `_view(one)`, or None where it cannot."""
    if not is_float32(tensor):
        return None
    shape, x = shape_of(tensor), shape_of(one.x)
    if one.groups:
        channels, size = x[1], math.prod(x[2:])
        if shape not in ((channels,), (channels, *(1 for _ in x[2:])), (1, channels, *(1 for _ in x[2:]))):
            return None
        if size < BLOCK:
            return [(channels, 1), (channels, size), (one.groups, channels // one.groups * size)]
        return [(one.groups, channels // one.groups, 1)]
    if len(shape) > len(x):
        return None
    full = (*(1 for _ in x[len(shape) :]), *shape)
    before, row = full[: one.first], full[one.first :]
    if not all(a in (1, b) for a, b in zip(full, x, strict=True)):
        return None
    if all(extent == 1 for extent in row) and any(extent != 1 for extent in before):
        return [(*before, 1)]
    if all(extent == 1 for extent in before):
        return [row, x[one.first :], (math.prod(x[one.first :]),)]
    return None


def _orders(value: Any, operator: str) -> list[tuple[Any, Any]]:
    """The arguments of a call of `operator`, which commutes, both ways round."""
    return [tuple(value.args), tuple(value.args[::-1])] if operator_name(value) == operator else []


def _number(expression: Any) -> float | None:
    """The value of a constant of one element."""
    array = constant_of(expression)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _last_axes(call: Any) -> int | None:
    """The first axis of a mean or variance over all axes from it on, which it keeps."""
    if (
        operator_name(call) not in ("relax.mean", "relax.variance")
        or call.attrs.axis is None
        or not is_float32(call.args[0])
    ):
        return None
    rank = len(shape_of(call.args[0]))
    axes = sorted(int(axis) % rank for axis in call.attrs.axis)
    return axes[0] if call.attrs.keepdims and axes == list(range(axes[0], rank)) and axes else None
