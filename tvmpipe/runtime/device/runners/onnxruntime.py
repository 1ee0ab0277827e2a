"""Stages that ONNX Runtime runs: an ONNX model whose large weights lie in the bundle's files.

Its inputs have the names that `input_name` gives, in the stage's order; its outputs stand in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.manifest import StageEntry
from tvmpipe.units import format_size

_QUIET = 4  # fatal errors; what is raised is told to the caller


def input_name(place: int) -> str:
    """What the input at this place is called in the model of a stage."""
    return f"tvmpipe/input{place}"


def weight_name(name: str) -> str:
    """What the weight of this name is called in the model of a stage."""
    return f"tvmpipe/weight/{name}"


def load(
    stage: StageEntry, library: Path, weights: Mapping[str, NDArray[Any]], threads: int | None = None
) -> OnnxRuntimeRunner:
    """See `load_stage`. Each stage has its own pool of threads, which do not spin between samples."""
    return OnnxRuntimeRunner(stage, library.read_bytes(), weights, threads)


class OnnxRuntimeRunner:
    """A session, with its optimisations on, that reads the stage's weights where they lie."""

    def __init__(
        self, stage: StageEntry, model: bytes, weights: Mapping[str, NDArray[Any]], threads: int | None
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        options.enable_cpu_mem_arena = False  # an arena keeps the most that any sample has needed
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_prepacking", "1")  # it would hold weights twice
        # Without VNNI, sums of 8-bit products saturate otherwise.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._held = [weights[name] for name in stage.weight_names]
        if stage.weight_names:
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._held]
            options.add_external_initializers([weight_name(name) for name in stage.weight_names], values)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._stage = stage
        self._names = [input_name(place) for place in range(len(stage.inputs))]
        self._forms = [(tensor.spec, tensor.spec.form) for tensor in stage.outputs]

    def release(self) -> None:
        """Nothing: without an arena, what a run needs is freed at its end."""

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Results for inputs in the stage's order. Raises ValueError where a result is not what the stage promises."""
        results = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        outputs = [np.asarray(result) for result in results]
        for (spec, form), array in zip(self._forms, outputs, strict=True):
            if not form.fits(array):
                shape = ",".join(map(str, array.shape))
                raise ValueError(f"ONNX Runtime made {array.dtype.name}[{shape}] where the model has {spec}")
            if array.nbytes > spec.most_bytes:
                size, most = format_size(array.nbytes), format_size(spec.most_bytes)
                raise ValueError(f"result {spec.name!r} takes {size}; links carry at most {most}")
        return outputs
