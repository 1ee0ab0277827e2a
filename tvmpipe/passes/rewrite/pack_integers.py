"""Products of 8-bit integers with constant ones -> calls of the kernel for them, the constants packed."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.dataflow import calls_any, definitions_of, mutated, operator_name
from tvmpipe.passes.frontend.onnx_nodes import emit_from
from tvmpipe.passes.kernels.base import BLOCK, INJECTIVE, OUT_FUSABLE, constant_of, shape_of
from tvmpipe.passes.kernels.dot_product import is_narrow
from tvmpipe.passes.kernels.integer_matmul.compute import integer_matmul, pack_integer_columns, sums_of_columns
from tvmpipe.passes.kernels.matmul.compute import take_columns
from tvmpipe.passes.rewrite.integer_operands import shifted_bytes


def pack_integers(module: Any) -> Any:
    """`module` with products of integers that are exact in 32 bits as calls of a kernel.

    ::

        a = R.subtract(R.astype(x, "int16"), zero)      # x is of 8 bits
        y = R.matmul(a, weight, out_dtype="int32")
        ->
        y = R.call_tir(integer_matmul, (x, packed_weight, sums_of_columns), ...)
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    if not calls_any(module, ("relax.matmul",)):
        return module
    definitions, _ = definitions_of(module)

    @mutator
    class Packer(PyExprMutator):  # type: ignore[misc]
        def visit_var_binding_(self, binding: Any) -> None:
            made = self._packed(binding.value, binding.var)
            if made is None:
                super().visit_var_binding_(binding)
            else:
                self.set_var_remap(binding.var, made)

        def _packed(self, call: Any, source: Any) -> Any:
            if operator_name(call) != "relax.matmul" or str(call.ty.dtype) != "int32":
                return None
            left = shifted_bytes(call.args[0], definitions)
            weight = constant_of(call.args[1])
            if left is None or weight is None or weight.dtype != np.int8 or weight.ndim != 2:
                return None
            if len(shape_of(left.numbers)) < 2 or shape_of(left.numbers) != shape_of(call.args[0]):
                return None
            constants = (pack_integer_columns(weight), sums_of_columns(weight))
            n = weight.shape[1]
            settings: dict[str, Any] = {"n": n, "narrow": is_narrow(constants[0]), "zero": left.known_zero or 0}
            zeros = [] if left.zero is None else [self.visit_expr(left.zero)]
            product = self.builder_.call_te(
                lambda *tensors: integer_matmul(*tensors, **settings),
                self.visit_expr(left.numbers),
                *(relax.const(array, "int32") for array in constants),
                *zeros,
                primfunc_name_hint="integer_matmul",
                primfunc_attrs={"op_pattern": OUT_FUSABLE},
            )
            output = not isinstance(source, relax.DataflowVar)
            if n % BLOCK == 0:
                return emit_from(self.builder_, product, source, output=output)
            whole = emit_from(self.builder_, product, source)
            attributes = {"op_pattern": INJECTIVE}
            columns = self.builder_.call_te(
                take_columns, whole, n, primfunc_name_hint="take_columns", primfunc_attrs=attributes
            )
            # The product alone has the node, as where products are legalised.
            return self.builder_.emit_output(columns) if output else self.builder_.emit(columns)

    # Nodes of what is read no more join those of what stands in its place.
    return relax.transform.DeadCodeElimination()(mutated(Packer(module), module))
