"""Fold views and simple arithmetic of constants in numpy; TVM would compile a function for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.dataflow import mutated, operator_name
from tvmpipe.passes.kernels.base import constant_of, static_shape

_Fold = Callable[[list[NDArray[Any]], Any, tuple[int, ...]], Any]


def _reshape(arrays: list[NDArray[Any]], attrs: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    return arrays[0].reshape(shape)


def _transpose(arrays: list[NDArray[Any]], attrs: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    return arrays[0].transpose(None if attrs.axes is None else [int(axis) for axis in attrs.axes])


def _dequantize(arrays: list[NDArray[Any]], attrs: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    numbers, *parameters = arrays
    along = [-1 if place == int(attrs.axis) % max(len(shape), 1) else 1 for place in range(len(shape))]
    scale, zero = (one.reshape(along) if one.ndim else one for one in parameters)
    return (numbers.astype(np.int32) - zero.astype(np.int32)).astype(np.float32) * scale.astype(np.float32)


def _elementwise(function: Callable[..., Any]) -> _Fold:
    return lambda arrays, attrs, shape: function(*arrays)


# Operator -> (constant arguments, attributes, shape of the result) -> array.
_RULES: dict[str, _Fold] = {
    "relax.reshape": _reshape,
    "relax.expand_dims": _reshape,
    "relax.squeeze": _reshape,
    "relax.flatten": _reshape,
    "relax.permute_dims": _transpose,
    "relax.dequantize": _dequantize,
    "relax.broadcast_to": lambda arrays, attrs, shape: np.broadcast_to(arrays[0], shape),
    "relax.isnan": _elementwise(np.isnan),
    "relax.where": _elementwise(np.where),
    "relax.add": _elementwise(np.add),
    "relax.subtract": _elementwise(np.subtract),
    "relax.multiply": _elementwise(np.multiply),
    "relax.sqrt": _elementwise(np.sqrt),
}


def fold_constants(module: Any) -> Any:
    """`module` without those operators of `main` in `_RULES` that read nothing but constants.

    ::

        a = R.reshape(constant, (1, 16, 1, 1))
        b = R.add(x, a)
        ->
        b = R.add(x, reshaped_constant)
    """
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Folder(PyExprMutator):  # type: ignore[misc]
        def __init__(self, module: Any) -> None:
            super().__init__(module)
            self.folded: dict[Any, Any] = {}

        def visit_var_binding_(self, binding: Any) -> None:
            constant = self._fold(binding.value)
            if constant is None or not isinstance(binding.var, relax.DataflowVar):
                super().visit_var_binding_(binding)
            else:
                self.folded[binding.var] = constant

        def visit_dataflow_var_(self, variable: Any) -> Any:
            return self.folded[variable] if variable in self.folded else super().visit_dataflow_var_(variable)

        def _fold(self, value: Any) -> Any:
            if isinstance(value, tvm.ir.GenericConst):
                return value
            rule = _RULES.get(operator_name(value))
            shape = static_shape(value.ty)
            if rule is None or shape is None:
                return None
            tensors = [argument for argument in value.args if not isinstance(argument, relax.ShapeExpr)]
            arrays = [constant_of(self.folded.get(tensor, tensor)) for tensor in tensors]
            if not arrays or any(array is None for array in arrays):
                return None
            with np.errstate(all="ignore"):
                result = np.ascontiguousarray(rule(arrays, value.attrs, shape), dtype=str(value.ty.dtype))
            return relax.const(result.reshape(shape), str(value.ty.dtype))

    return mutated(Folder(module), module)
