"""Constant weights with a scale for each block of an axis: Relax has no operator for them, and this is a call of none.

The rewrite `pack_weights` replaces every such call, by a product with the packed weight or by the weight's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.dataflow import operator_name
from tvmpipe.passes.kernels.base import constant_of

_FUNCTION = "tvmpipe.dequantize_blocks"


@dataclass(frozen=True)
class BlockDequantisation:
    """`(numbers - zeros) * scales` of 8-bit numbers; along `axis` each `block` of them share a scale and zero point."""

    numbers: NDArray[Any]
    scales: NDArray[np.float32]
    zeros: NDArray[Any] | None
    axis: int
    block: int

    def call(self) -> Any:
        """A Relax call that stands for the float32 result."""
        from tvm import relax

        arrays = [self.numbers, self.scales, *([] if self.zeros is None else [self.zeros])]
        return relax.op.call_pure_packed(
            _FUNCTION,
            *(relax.const(array, str(array.dtype)) for array in arrays),
            relax.ShapeExpr([self.axis, self.block]),
            ty_args=relax.TensorType(self.numbers.shape, "float32"),
        )

    def real(self) -> NDArray[np.float32]:
        """The result."""
        number = self.numbers.astype(np.int32)
        if self.zeros is not None:
            number = number - self._spread(self.zeros).astype(np.int32)
        return np.asarray(number.astype(np.float32) * self._spread(self.scales))

    def _spread(self, parameter: NDArray[Any]) -> NDArray[Any]:
        extent = self.numbers.shape[self.axis]
        return np.repeat(parameter, self.block, self.axis).take(range(extent), self.axis)


def block_dequantisation(value: Any) -> BlockDequantisation | None:
    """What a Relax expression stands for where it is such a call, else None."""
    if operator_name(value) != "relax.call_pure_packed" or value.args[0].global_symbol != _FUNCTION:
        return None
    *arrays, place = value.args[1:]
    numbers, scales, *zeros = (constant_of(one) for one in arrays)
    axis, block = (int(one) for one in place.values)
    return BlockDequantisation(numbers, scales, zeros[0] if zeros else None, axis, block)
