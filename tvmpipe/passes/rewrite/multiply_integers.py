"""Products and convolutions of dequantised numbers -> those of their integers, dequantised afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.dataflow import calls_any, mutated, operator_name
from tvmpipe.passes.frontend.onnx_nodes import emit_from
from tvmpipe.passes.kernels.base import constant_of, shape_of
from tvmpipe.passes.rewrite.integer_operands import dequantising

_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
_LAYOUTS = ("NCW", "OIW", "NCHW", "OIHW", "NCDHW", "OIDHW")


def multiply_integers(module: Any) -> Any:
    """`module` with the integers of quantised weights as integers, where what they meet is quantised too.

    ::

        a = R.dequantize(x, x_scale, x_zero)
        w = R.dequantize(weight, scales, zeros, axis=0)
        y = R.nn.conv2d(a, w)
        ->
        c = R.subtract(R.astype(x, "int16"), x_zero)
        s = R.nn.conv2d(c, weight_less_zeros, out_dtype="int32")
        y = R.dequantize(s, x_scale * scales, 0, axis=1)

    Sums of integers are exact; those of floats that they stand for are not.
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    if not calls_any(module, ("relax.dequantize",)):
        return module

    @mutator
    class Multiplier(PyExprMutator):  # type: ignore[misc]
        def visit_var_binding_(self, binding: Any) -> None:
            name = operator_name(binding.value)
            made = None
            if name in (*_CONVOLUTIONS, "relax.matmul"):
                made = self._integer(self.visit_expr(binding.value), name, binding.var)
            if made is None:
                super().visit_var_binding_(binding)
                return
            output = not isinstance(binding.var, relax.DataflowVar)
            # The sum alone has the node: what dequantises it may be in another primitive.
            self.set_var_remap(binding.var, (self.builder_.emit_output if output else self.builder_.emit)(made))

        def _integer(self, call: Any, name: str, source: Any) -> Any:
            sides = [dequantising(self.builder_, argument) for argument in call.args]
            if any(side is None for side in sides) or not _takes(call, name):
                return None
            (x, x_scale, x_zero), (weight, scale, _) = (side.args for side in sides)
            axis = 0 if name in _CONVOLUTIONS else len(shape_of(weight)) - 1
            numbers = _less_zeros(sides[1], axis)
            known_zero = constant_of(x_zero)
            if numbers is None or known_zero is None or shape_of(x_scale) or shape_of(x_zero):
                return None
            if str(x.ty.dtype) not in ("int8", "uint8"):
                return None
            data = x
            if known_zero.any():
                wide = emit_from(self.builder_, relax.op.astype(x, "int16"), source)
                shift = relax.const(known_zero.astype(np.int16), "int16")
                data = emit_from(self.builder_, relax.op.subtract(wide, shift), source)
            sums = emit_from(self.builder_, _of_integers(call, name, data, relax.const(numbers, "int8")), source)
            both = [constant_of(x_scale), constant_of(scale)]
            if both[0] is not None and both[1] is not None:
                product = relax.const(np.asarray(both[0] * both[1], np.float32), "float32")
            else:
                product = self.builder_.emit(relax.op.multiply(x_scale, scale))
            channels = 1 if name in _CONVOLUTIONS else len(shape_of(call)) - 1
            return relax.op.dequantize(sums, product, relax.const(0, "int32"), channels, "float32")

    # Nodes of what is read no more join those of what stands in its place.
    return relax.transform.DeadCodeElimination()(mutated(Multiplier(module), module))


def _takes(call: Any, name: str) -> bool:
    if name == "relax.matmul":
        return len(shape_of(call.args[1])) == 2 and len(shape_of(call.args[0])) >= 2
    return call.attrs.data_layout in _LAYOUTS and call.attrs.kernel_layout in _LAYOUTS


def _of_integers(call: Any, name: str, data: Any, weight: Any) -> Any:
    from tvm import relax

    if name == "relax.matmul":
        return relax.op.matmul(data, weight, out_dtype="int32")
    attrs = call.attrs
    convolve = getattr(relax.op.nn, name.removeprefix("relax.nn."))
    strides, padding, dilation = ([int(one) for one in part] for part in (attrs.strides, attrs.padding, attrs.dilation))
    return convolve(data, weight, strides, padding, dilation, int(attrs.groups), out_dtype="int32")


def _less_zeros(call: Any, axis: int) -> NDArray[np.int8] | None:
    """The constant integers that a call dequantises less their zero points, where those are along `axis` and fit."""
    weight, zero = constant_of(call.args[0]), constant_of(call.args[2])
    sizes = {shape_of(parameter) for parameter in call.args[1:]} - {()}
    if weight is None or zero is None or weight.dtype.name not in ("int8", "uint8"):
        return None
    if sizes and int(call.attrs.axis) % weight.ndim != axis:
        return None
    spread = zero.reshape([-1 if place == axis else 1 for place in range(weight.ndim)]) if zero.ndim else zero
    numbers = weight.astype(np.int16) - spread.astype(np.int16)
    bounds = np.iinfo(np.int8)
    fits = bounds.min <= numbers.min(initial=0) and numbers.max(initial=0) <= bounds.max
    return numbers.astype(np.int8) if fits else None
