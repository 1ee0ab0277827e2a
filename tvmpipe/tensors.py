"""The shape and element type of a tensor, wherever one crosses a border."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class TensorSpec(BaseModel):
    """A named tensor: `shape` in elements, `dtype` as numpy spells it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        """Bytes of the dense tensor."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{','.join(map(str, self.shape))}]"


def random_tensor(spec: TensorSpec, generator: np.random.Generator) -> NDArray[Any]:
    """A random tensor of one spec: normal floats, fair booleans, integers 0 or 1, which are valid indices."""
    dtype = np.dtype(spec.dtype)
    if dtype == np.bool_:
        return generator.integers(0, 2, spec.shape).astype(np.bool_)
    if np.issubdtype(dtype, np.integer):
        return generator.integers(0, 2, spec.shape).astype(dtype)
    return generator.standard_normal(spec.shape).astype(dtype)
