"""The shape and element type of a tensor, wherever one crosses a border."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_MOST_DIMS = 16  # as on the stage link
_MOST_BYTES = 1 << 48


class TensorSpec(BaseModel):
    """A named tensor: `shape` in elements, `dtype` as numpy spells it.

    Integers of a model's input lie in 0..`below`-1 where the model looks something up with them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: Annotated[tuple[Annotated[int, Field(ge=0, le=_MOST_BYTES)], ...], Field(max_length=_MOST_DIMS)]
    dtype: str
    below: int | None = Field(default=None, ge=1)

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
    def _fits_somewhere(self) -> TensorSpec:
        if self.size_bytes > _MOST_BYTES:
            raise ValueError("the tensor is larger than any memory")
        return self

    @property
    def size_bytes(self) -> int:
        """Bytes of the dense tensor."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{','.join(map(str, self.shape))}]"


def random_tensor(spec: TensorSpec, generator: np.random.Generator) -> NDArray[Any]:
    """A random tensor of one spec: normal floats, fair booleans, integers that its model takes.

    Those are valid indices where it looks something up; of 8 and 16 bits all there are, which are pixels or sound;
    else 0 or 1: masks, kinds and lengths.
    """
    dtype = np.dtype(spec.dtype)
    if dtype == np.bool_:
        return generator.integers(0, 2, spec.shape).astype(np.bool_)
    if np.issubdtype(dtype, np.integer):
        if spec.below is None and dtype.itemsize <= 2:
            limits = np.iinfo(dtype)
            return generator.integers(limits.min, limits.max, spec.shape, dtype=dtype, endpoint=True)
        most = 2 if spec.below is None else min(spec.below, int(np.iinfo(dtype).max))
        return generator.integers(0, most, spec.shape).astype(dtype)
    return generator.standard_normal(spec.shape).astype(dtype)
