"""What costs were said of a model's primitives beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Priced:
    """What a method said of a model's distinct primitives, in seconds, with an interval; what was measured."""

    model: str
    said: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    measured: NDArray[np.float64]
    calls: NDArray[np.float64]

    @property
    def errors(self) -> NDArray[np.float64]:
        """Relative error of each primitive."""
        return np.abs(self.said / self.measured - 1)

    @property
    def whole(self) -> float:
        """Relative error of the sum over all calls."""
        return float(self.said @ self.calls / (self.measured @ self.calls) - 1)

    @property
    def spearman(self) -> float:
        """Rank correlation of said and measured."""
        said, measured = (np.argsort(np.argsort(values)) for values in (self.said, self.measured))
        return float(np.corrcoef(said, measured)[0, 1])

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Which measurements lie in their intervals."""
        return (self.low <= self.measured) & (self.measured <= self.high)
