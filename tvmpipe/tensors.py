"""The shape and element type of a tensor, wherever one crosses a border."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

CARRIERS: Mapping[str, str] = MappingProxyType(
    {
        "bfloat16": "float32",
        "float8_e4m3fn": "float32",
        "float8_e4m3fnuz": "float32",
        "float8_e5m2": "float32",
        "float8_e5m2fnuz": "float32",
        "float8_e8m0fnu": "float32",
        "float6_e2m3fn": "float32",
        "float6_e3m2fn": "float32",
        "float4_e2m1fn": "float32",
        "int4": "int8",
        "uint4": "uint8",
        "int2": "int8",
        "uint2": "uint8",
    }
)
"""Element types that numpy lacks -> the type that holds their numbers, exactly, in compiled models and on links."""

_MOST_DIMS = 16  # as on the stage link
_MOST_BYTES = 1 << 48
_MOST_OPEN_BYTES = 1 << 30


class TensorSpec(BaseModel):
    """A named tensor: `shape` in elements, `dtype` as numpy spells it.

    Integers of a model's input lie in 0..`below`-1 where the model looks something up with them. Extents of the axes
    `open` are known only when the model has run: `shape` has there what a plan counts on. Of a model's input or output
    whose elements numpy has no type for, `element` is their type and `dtype` its carrier (see `CARRIERS`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: Annotated[tuple[Annotated[int, Field(ge=0, le=_MOST_BYTES)], ...], Field(max_length=_MOST_DIMS)]
    dtype: str
    below: int | None = Field(default=None, ge=1)
    open: tuple[Annotated[int, Field(ge=0)], ...] = ()
    element: str | None = None

    @field_validator("dtype")
    @classmethod
    def _is_a_number(cls, dtype: str) -> str:
        try:
            found = np.dtype(dtype)
        except (TypeError, ValueError, SyntaxError):
            found = None
        if found is None or found.kind not in "biuf" or found.name != dtype:
            raise ValueError(f"{dtype[:40]!r} is no type of numbers or booleans")
        return dtype

    @model_validator(mode="after")
    def _is_carried(self) -> TensorSpec:
        if self.element is not None and CARRIERS.get(self.element) != self.dtype:
            raise ValueError(f"{self.element[:40]!r} is no type whose numbers {self.dtype} carries")
        return self

    @model_validator(mode="after")
    def _fits_somewhere(self) -> TensorSpec:
        if self.size_bytes > _MOST_BYTES:
            raise ValueError("the tensor is larger than any memory")
        if list(self.open) != sorted({axis for axis in self.open if axis < len(self.shape)}):
            raise ValueError("open axes are those of the shape, each once and in order")
        return self

    @property
    def size_bytes(self) -> int:
        """Bytes of the dense tensor; with open axes, those that a plan counts on."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def most_bytes(self) -> int:
        """The most bytes that a tensor of this spec may have: 1 GiB with open axes, if a plan counts on no more."""
        return max(self.size_bytes, _MOST_OPEN_BYTES) if self.open else self.size_bytes

    @property
    def form(self) -> TensorForm:
        """What arrays are compared with."""
        return TensorForm(self.shape, np.dtype(self.dtype), self.open)

    @property
    def extents(self) -> tuple[int | str, ...]:
        """The shape for people: "?" for open axes."""
        return tuple("?" if axis in self.open else extent for axis, extent in enumerate(self.shape))

    def __str__(self) -> str:
        return f"{self.name}: {self.element or self.dtype}[{','.join(map(str, self.extents))}]"


class TensorForm(NamedTuple):
    """Shape and element type that arrays of a spec have; extents of the axes `open` may be any."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open: tuple[int, ...] = ()

    def fits(self, array: NDArray[Any]) -> bool:
        """Whether an array is of this form."""
        if array.dtype != self.dtype:
            return False
        if array.shape == self.shape:
            return True
        if not self.open or array.ndim != len(self.shape):
            return False
        pairs = enumerate(zip(array.shape, self.shape, strict=True))
        return all(have == want or axis in self.open for axis, (have, want) in pairs)


def element_dtype(element: str) -> np.dtype[Any]:
    """The type of arrays whose elements numpy has no type for.

    Raises ModuleNotFoundError where the package ml_dtypes is missing, which comes with onnx.
    """
    import ml_dtypes

    found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, element))
    return found


def random_tensor(spec: TensorSpec, generator: np.random.Generator) -> NDArray[Any]:
    """A random tensor of one spec: normal floats, fair booleans, integers that its model takes.

    Those are valid indices where it looks something up; of 8 and 16 bits all there are, which are pixels or sound;
    else 0 or 1: masks, kinds and lengths.
    """
    dtype = np.dtype(spec.dtype)
    if spec.element is not None:
        numbers = generator.standard_normal(spec.shape) if dtype.kind == "f" else generator.integers(0, 2, spec.shape)
        return numbers.astype(dtype).astype(element_dtype(spec.element))
    if dtype == np.bool_:
        return generator.integers(0, 2, spec.shape).astype(np.bool_)
    if np.issubdtype(dtype, np.integer):
        if spec.below is None and dtype.itemsize <= 2:
            limits = np.iinfo(dtype)
            return generator.integers(limits.min, limits.max, spec.shape, dtype=dtype, endpoint=True)
        most = 2 if spec.below is None else min(spec.below, int(np.iinfo(dtype).max))
        return generator.integers(0, most, spec.shape).astype(dtype)
    return generator.standard_normal(spec.shape).astype(dtype)
