"""Fold batch norms and constant scales and shifts of images into one `x * a + b`, and into a convolution before it.

In numpy, weight by weight: TVM's own folding compiles a function for every constant it computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.dataflow import definitions_of, mutated, operator_name
from tvmpipe.passes.frontend.onnx_nodes import emit_from
from tvmpipe.passes.kernels.base import constant_of, is_float32, shape_of
from tvmpipe.passes.kernels.half_weights import half_types, narrowed

_OPERATORS = {"relax.add", "relax.subtract", "relax.multiply", "relax.divide"}


@dataclass(frozen=True)
class _Affine:
    """`base * scale + shift`, both of shape `[C]`; a convolution's `base` may still be without its scale."""

    base: Any
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


def fold_affine(module: Any) -> Any:
    """`module` with the constant affine maps of `main`'s images folded.

    ::

        a = R.nn.conv2d(x, weight)
        b = R.nn.batch_norm(a, gamma, beta, mean, variance)
        c = b[0]
        y = R.multiply(c, constant)
        ->
        d = R.nn.conv2d(x, weight * scale)
        y = R.add(d, shift)

    with `scale` and `shift` of all three, one number for each channel; where there is no convolution before them, or
    something else reads its result as well, or its weight is stored in half precision,
    `R.add(R.multiply(x, scale), shift)`.
    """
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    _, users = definitions_of(module)
    halves = half_types(module)

    @mutator
    class Folder(PyExprMutator):  # type: ignore[misc]
        def __init__(self, module: Any) -> None:
            super().__init__(module)
            self.pending: dict[Any, _Affine] = {}
            self.convolutions: dict[Any, Any] = {}
            self.norms: dict[Any, Any] = {}
            self.done: dict[Any, Any] = {}

        def visit_var_binding_(self, binding: Any) -> None:
            value = binding.value
            if isinstance(binding.var, relax.DataflowVar):
                affine = self._affine(value)
                if affine is not None:
                    self.pending[binding.var] = affine
                    return
                if _is_foldable_norm(value):
                    self.norms[binding.var] = value
                    return
                if _is_foldable_convolution(value) and users.get(binding.var) == 1:
                    self.convolutions[binding.var] = value
                    return
            super().visit_var_binding_(binding)

        def visit_dataflow_var_(self, variable: Any) -> Any:
            if not any(variable in lazy for lazy in (self.pending, self.convolutions, self.norms)):
                return super().visit_dataflow_var_(variable)
            if variable not in self.done:
                self.done[variable] = self._emit(variable)
            return self.done[variable]

        def _affine(self, value: Any) -> _Affine | None:
            step = _read_norm(value, self.norms) if isinstance(value, relax.TupleGetItem) else _read(value)
            if step is None:
                return None
            data, scale, shift = step
            before = self.pending.get(data)
            # An intermediate result that something else reads as well is there anyway: start from it.
            if before is None or users.get(data) != 1:
                return _Affine(data, scale, shift)
            return _Affine(before.base, before.scale * scale, before.shift * scale + shift)

        def _emit(self, variable: Any) -> Any:
            for lazy in (self.convolutions, self.norms):
                if variable in lazy:
                    return emit_from(self.builder_, self.visit_expr(lazy[variable]), variable)
            affine = self.pending[variable]
            convolution = self.convolutions.get(affine.base)
            # Scaled, the numbers of a half weight would be none of that type any more.
            if convolution is not None and affine.base not in self.done and not self._is_half(convolution):
                data, weight = convolution.args
                scaled = weight.value.numpy() * affine.scale.reshape(-1, 1, 1, 1)
                arguments = [self.visit_expr(data), relax.const(scaled.astype(np.float32), "float32")]
                result = tvm.ir.Call(convolution.op, arguments, convolution.attrs, convolution.ty_args)
            else:
                result = self.visit_expr(affine.base)
                if np.any(affine.scale != 1):
                    result = relax.op.multiply(result, _per_channel(affine.scale))
            if np.any(affine.shift != 0):
                result = relax.op.add(self._bound(result, variable), _per_channel(affine.shift))
            return self._bound(result, variable)

        def _is_half(self, convolution: Any) -> bool:
            return narrowed(constant_of(convolution.args[1]), halves) is not None

        def _bound(self, value: Any, variable: Any) -> Any:
            """A variable for `value`; none that is only another name, which later rewrites would not look through."""
            return value if isinstance(value, relax.Var) else emit_from(self.builder_, value, variable)

    return mutated(Folder(module), module)


def _read(value: Any) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]] | None:
    """(data, scale, shift) of one operator that maps each channel of an image affinely, or None."""
    from tvm import relax

    name = operator_name(value)
    if name not in _OPERATORS or not is_float32(*value.args):
        return None
    left, right = value.args
    swapped = constant_of(left) is not None
    if swapped and name == "relax.divide":
        return None
    data, constant = (right, left) if swapped else (left, right)
    if not isinstance(data, relax.Var) or len(shape_of(data)) != 4 or shape_of(value) != shape_of(data):
        return None
    array = constant_of(constant)
    channels = shape_of(data)[1]
    if array is None or array.size not in (1, channels) or (array.size > 1 and array.shape[-3:] != (channels, 1, 1)):
        return None
    numbers = np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,))
    one, zero = np.ones(channels), np.zeros(channels)
    with np.errstate(divide="ignore"):
        scale, shift = {
            "relax.add": (one, numbers),
            "relax.subtract": (-one, numbers) if swapped else (one, -numbers),
            "relax.multiply": (numbers, zero),
            "relax.divide": (one / numbers, zero),
        }[name]
    return (data, scale, shift) if np.all(np.isfinite(scale)) and np.all(np.isfinite(shift)) else None


def _read_norm(item: Any, norms: dict[Any, Any]) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]] | None:
    """The same of the normalised image, the first of the results of a batch norm."""
    norm = norms.get(item.tuple_value)
    if norm is None or int(item.index) != 0:
        return None
    gamma, beta, mean, variance = (constant_of(argument).astype(np.float64) for argument in norm.args[1:])
    scale = gamma / np.sqrt(variance + float(norm.attrs.epsilon))
    return norm.args[0], scale, beta - mean * scale


def _is_foldable_norm(value: Any) -> bool:
    from tvm import relax

    if operator_name(value) != "relax.nn.batch_norm" or not is_float32(*value.args):
        return False
    data, *statistics = value.args
    constant = all(constant_of(argument) is not None for argument in statistics)
    return constant and int(value.attrs.axis) == 1 and len(shape_of(data)) == 4 and isinstance(data, relax.Var)


def _is_foldable_convolution(value: Any) -> bool:
    if operator_name(value) != "relax.nn.conv2d" or not is_float32(*value.args):
        return False
    layouts = (value.attrs.data_layout, value.attrs.kernel_layout)
    return constant_of(value.args[1]) is not None and layouts == ("NCHW", "OIHW")


def _per_channel(numbers: NDArray[np.float64]) -> Any:
    from tvm import relax

    if np.all(numbers == numbers[0]):
        return relax.const(float(numbers[0]), "float32")
    return relax.const(numbers.astype(np.float32).reshape(1, -1, 1, 1), "float32")
