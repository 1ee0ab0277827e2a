"""Relax operators by name with numbers as operands: how converters of larger operators write their arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import constant_of, static_shape


@dataclass(frozen=True)
class Emitter:
    """Emits into a `relax.BlockBuilder`: `emit("nn.softmax", x, axis=-1)` is `builder.emit(relax.op.nn.softmax(...))`.

    A number among the operands becomes a constant of the first tensor's element type.
    """

    builder: Any

    def __call__(self, operator: str, *operands: Any, **attributes: Any) -> Any:
        from tvm import relax

        dtype = next((str(operand.ty.dtype) for operand in operands if hasattr(operand, "ty")), "float32")
        given = [
            relax.const(operand, dtype) if isinstance(operand, bool | int | float) else operand for operand in operands
        ]
        function = functools.reduce(getattr, operator.split("."), relax.op)
        return self.builder.emit(function(*given, **attributes))

    def shape(self, tensor: Any) -> tuple[int, ...]:
        """The static shape of a tensor. Raises NotImplementedError where it is not known."""
        shape = static_shape(self.builder.normalize(tensor).ty)
        if shape is None:
            raise NotImplementedError("the shape of an input is not known")
        return shape

    def reshape(self, tensor: Any, shape: Sequence[int]) -> Any:
        """`tensor` itself where it has the shape."""
        wanted = tuple(int(extent) for extent in shape)
        return tensor if self.shape(tensor) == wanted else self("reshape", tensor, wanted)

    def transpose(self, tensor: Any, axes: Sequence[int]) -> Any:
        """The axes of `tensor` in another order."""
        return self("permute_dims", tensor, axes=list(axes))

    def channels_first(self, tensor: Any) -> Any:
        """[N, ..., C] as [N, C, ...]."""
        rank = len(self.shape(tensor))
        return self.transpose(tensor, (0, rank - 1, *range(1, rank - 1)))

    def channels_last(self, tensor: Any) -> Any:
        """[N, C, ...] as [N, ..., C]."""
        return self.transpose(tensor, (0, *range(2, len(self.shape(tensor))), 1))

    def cut(self, tensor: Any, axis: int, begin: int, end: int) -> Any:
        """`tensor[begin:end]` along an axis; `tensor` itself where that is all of it."""
        if begin == 0 and end == self.shape(tensor)[axis]:
            return tensor
        return self("strided_slice", tensor, axes=[axis], begin=[begin], end=[end])

    def concatenate(self, tensors: Sequence[Any], axis: int) -> Any:
        """Tensors one after the other; the only one itself."""
        from tvm import relax

        return tensors[0] if len(tensors) == 1 else self.builder.emit(relax.op.concat(list(tensors), axis=axis))

    def cast(self, tensor: Any, dtype: str) -> Any:
        """`tensor` itself where its elements are of that type."""
        return tensor if str(tensor.ty.dtype) == dtype else self("astype", tensor, dtype=dtype)

    def counted(self, count: int, dtype: str, shape: Sequence[int]) -> Any:
        """The constant 0, 1, ..., count - 1 in a shape."""
        return self.constant(np.arange(count, dtype=dtype).reshape(shape))

    def constant(self, array: NDArray[Any] | np.generic) -> Any:
        """A constant of the array's own type."""
        from tvm import relax

        return relax.const(np.ascontiguousarray(array), str(array.dtype))


def is_zero(tensor: Any) -> bool:
    """Whether a tensor is a constant of zeros."""
    array = constant_of(tensor)
    return array is not None and not array.any()


def known_integer(tensor: Any) -> int | None:
    """The number that a constant of one element holds, None for what is not constant."""
    array = constant_of(tensor)
    return int(array.reshape(-1)[0]) if array is not None and array.size == 1 else None
