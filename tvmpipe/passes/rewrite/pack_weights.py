"""Products with constant weights that are dequantised -> calls of the kernel that reads them packed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.arithmetic.block_dequantisation import BlockDequantisation, block_dequantisation
from tvmpipe.passes.frontend.dataflow import calls_any, mutated, operator_name, readers_of
from tvmpipe.passes.frontend.onnx_nodes import emit_from
from tvmpipe.passes.kernels.base import constant_of, is_float32, shape_of
from tvmpipe.passes.kernels.weight_only_matmul.compute import emit_product
from tvmpipe.passes.kernels.weight_only_matmul.weight import PackedWeight, pack_weight, words_of

_LEAST = 1024  # numbers; what is smaller becomes floats


def pack_weights(module: Any) -> Any:
    """`module` with products of floats and of constants that are dequantised as calls of a kernel.

    ::

        w = R.dequantize(weight, scales, zeros, axis=1)      # constant integers of 8 bits or less
        y = R.matmul(x, w)                                   # x is float32
        ->
        y = R.call_tir(weight_only_matmul, (x, packed_weight, packed_scales, ...), ...)

    So they do where scales belong to columns, or to blocks of rows, or where the weight is transposed between both.
    Weights that others read as well become floats, as do blocks of anything else.
    """
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    if not calls_any(module, ("relax.dequantize", "relax.call_pure_packed")):
        return module
    weights = _packed_weights(module)

    @mutator
    class Packer(PyExprMutator):  # type: ignore[misc]
        def visit_var_binding_(self, binding: Any) -> None:
            call, source = binding.value, binding.var
            output = not isinstance(source, relax.DataflowVar)
            weight = weights.get(call.args[1]) if operator_name(call) == "relax.matmul" else None
            if weight is None:
                super().visit_var_binding_(binding)
                return
            product, first_columns = emit_product(self.builder_, self.visit_expr(call.args[0]), weight)
            if first_columns is None:
                made = emit_from(self.builder_, product, source, output=output)
            else:
                # The product alone has the node, as where products are legalised.
                columns = first_columns(emit_from(self.builder_, product, source))
                made = self.builder_.emit_output(columns) if output else self.builder_.emit(columns)
            self.set_var_remap(source, made)

        def visit_call_(self, call: Any) -> Any:
            found = block_dequantisation(call)
            return super().visit_call_(call) if found is None else relax.const(found.real(), "float32")

    # Nodes of what is read no more join those of what stands in its place.
    rewritten = relax.transform.DeadCodeElimination()(mutated(Packer(module), module))
    assert isinstance(rewritten, tvm.IRModule)
    return rewritten


def _packed_weights(module: Any) -> dict[Any, PackedWeight]:
    """The variables that only products read, on the right, and the packed weights that they stand for."""
    from tvm import relax

    values = {binding.var: binding.value for block in module["main"].body.blocks for binding in block.bindings}
    readers = readers_of(module)
    packed: dict[Any, PackedWeight] = {}
    for variable, value in values.items():
        found = _dequantised(value)
        if found is None or found.numbers.size < _LEAST:
            continue
        columns: list[Any] = []
        turned: list[Any] = []
        for reader in readers.get(variable, []):
            (turned if _is_transpose(values[reader]) else columns).append(reader)
        products = [(variable, reader) for reader in columns]
        products += [(one, reader) for one in turned for reader in readers.get(one, [])]
        fits = all(
            isinstance(right, relax.DataflowVar) and _multiplies(values[reader], right) for right, reader in products
        )
        if not products or not fits:
            continue
        for right, transposed in ((variable, False), *((one, True) for one in turned)):
            weight = _pack(found, transposed=transposed)
            if weight is not None and (transposed or columns):
                packed[right] = weight
    return packed


def _dequantised(value: Any) -> BlockDequantisation | None:
    """The constant matrix that an expression dequantises; scales of one axis are those of one block of the other."""
    if operator_name(value) != "relax.dequantize":
        return block_dequantisation(value)
    numbers, scale, zero = (constant_of(argument) for argument in value.args)
    if numbers is None or scale is None or zero is None or numbers.ndim != 2:
        return None
    if numbers.dtype.name not in ("int8", "uint8") or str(value.attrs.out_dtype) != "float32":
        return None
    if not scale.ndim and not zero.ndim:
        return BlockDequantisation(numbers, scale.reshape(1, 1), zero.reshape(1, 1), 0, numbers.shape[0])
    axis = int(value.attrs.axis) % 2
    shape = tuple(numbers.shape[axis] if place == axis else 1 for place in range(2))
    scales, zeros = (np.broadcast_to(one.reshape(-1), numbers.shape[axis]).reshape(shape) for one in (scale, zero))
    return BlockDequantisation(numbers, scales, zeros, 1 - axis, numbers.shape[1 - axis])


def _is_transpose(value: Any) -> bool:
    return operator_name(value) == "relax.permute_dims" and len(shape_of(value)) == 2


def _multiplies(value: Any, right: Any) -> bool:
    """Whether an expression is a product of float32 rows and a matrix `right`."""
    return (
        operator_name(value) == "relax.matmul"
        and value.args[1].same_as(right)
        and not value.args[0].same_as(right)
        and is_float32(value, *value.args)
        and len(shape_of(value.args[0])) >= 2
    )


def _pack(found: BlockDequantisation, *, transposed: bool) -> PackedWeight | None:
    """The weight packed, in as few bits as its numbers have; None where scales are not along its rows."""
    single = found.scales.size == 1
    if found.axis != int(transposed) and not single:
        return None
    numbers, scales = found.numbers.astype(np.int16), found.scales
    zeros = np.zeros((1, 1), np.int16) if found.zeros is None else found.zeros.astype(np.int16)
    if transposed:
        numbers, scales, zeros = numbers.T, scales.T, zeros.T
    k, n = numbers.shape
    if single:
        scales, zeros = np.repeat(scales.reshape(1, 1), n, 1), zeros.reshape(1, 1)
    bits, offset = _width(numbers, zeros)
    one = zeros.reshape(-1)[0] + offset
    return pack_weight(
        words_of((numbers + offset).astype(np.uint8), bits),
        scales,
        float(one) if (zeros + offset == one).all() else (zeros + offset).astype(np.uint8),
        k=k,
        bits=bits,
        block=k if single else found.block,
    )


def _width(numbers: NDArray[np.int16], zeros: NDArray[np.int16]) -> tuple[int, int]:
    """(bits, what must be added) for unsigned integers of as few bits as possible."""
    low = min(int(numbers.min()), int(zeros.min()))
    high = max(int(numbers.max()), int(zeros.max()))
    return next(
        (bits, offset)
        for bits in (2, 4, 8)
        for offset in (0, 1 << bits - 1)
        if low + offset >= 0 and high + offset < 1 << bits
    )
