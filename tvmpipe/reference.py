"""ONNX Runtime's results, which every pipeline's are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

TOLERANCE = 1e-4
"""Largest difference from ONNX Runtime over its largest value that counts as equal."""


class Reference:
    """A model in ONNX Runtime on the CPU."""

    def __init__(self, model: Path | bytes, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        source = str(model) if isinstance(model, Path) else model
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    def run(self, sample: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        names = [output.name for output in self._session.get_outputs()]
        wanted = {value.name for value in self._session.get_inputs()}
        feed = {name: array for name, array in sample.items() if name in wanted}
        return dict(zip(names, self._session.run(names, feed), strict=True))


def relative_error(actual: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> float:
    """Largest |difference| over largest |expected|, the worst over all outputs; inf for another shape or NaN."""
    worst = 0.0
    for name, want in expected.items():
        have = actual[name]
        if have.shape != want.shape or have.dtype != want.dtype:
            return float("inf")
        if not want.size:
            continue
        difference = np.abs(have.astype(np.float64) - want.astype(np.float64))
        same = (have == want) | (np.isnan(have) & np.isnan(want) if np.issubdtype(want.dtype, np.inexact) else False)
        error = float(np.max(np.where(same, 0.0, difference)))
        scale = float(np.max(np.abs(np.where(np.isfinite(want), want, 0).astype(np.float64))))
        if np.isnan(error):
            return float("inf")
        worst = max(worst, error / scale if scale else error)
    return worst
