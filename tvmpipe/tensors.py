"""The shape and element type of a tensor, wherever one crosses a border."""

from __future__ import annotations

import math

import numpy as np
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
