"""Stages that ONNX Runtime runs: an ONNX model whose large weights lie in the bundle's files.

Its inputs have the names that `input_name` gives, in the stage's order; its outputs stand in that order.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.manifest import StageEntry
from tvmpipe.units import format_size

logger = logging.getLogger(__name__)

_QUIET = 4  # fatal errors; what is raised is told to the caller


def input_name(place: int) -> str:
    """What the input at this place is called in the model of a stage."""
    return f"tvmpipe/input{place}"


def weight_name(name: str) -> str:
    """What the weight of this name is called in the model of a stage."""
    return f"tvmpipe/weight/{name}"


WEIGHTS_FILE = "weights"
"""Where the model of a stage says that its weights lie: the runner has them, and there is no such file."""


def load(
    stage: StageEntry, library: Path, weights: Mapping[str, NDArray[Any]], threads: int | None = None
) -> OnnxRuntimeRunner:
    """See `load_stage`. Each stage has its own pool of threads, which do not spin between samples."""
    return OnnxRuntimeRunner(stage, library.read_bytes(), weights, threads)


class OnnxRuntimeRunner:
    """A session, with its optimisations on, that reads the stage's weights where they lie.

    Unless an optimisation makes other weights of them: then ONNX Runtime has copies.
    """

    def __init__(
        self, stage: StageEntry, model: bytes, weights: Mapping[str, NDArray[Any]], threads: int | None
    ) -> None:
        import onnxruntime

        self._stage = stage
        # ONNX Runtime keeps neither the arrays nor what it is given of them.
        self._arrays = {weight_name(name): weights[name] for name in stage.weight_names}
        self._values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(one) for name, one in self._arrays.items()}
        self._session = self._lean(model, threads) or self._copying(model, threads)
        self._names = [input_name(place) for place in range(len(stage.inputs))]
        self._forms = [(tensor.spec, tensor.spec.form) for tensor in stage.outputs]

    def _lean(self, model: bytes, threads: int | None) -> Any:
        """A session that uses the weights themselves; None where ONNX Runtime asks for them in a file."""
        import onnxruntime

        options = self._options(threads)
        for name, value in self._values.items():
            options.add_initializer(name, value)
        with tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder:
            # It wants to see the file that it does not read.
            Path(folder, WEIGHTS_FILE).touch()
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
            try:
                return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # its exceptions have no common base
                if not self._values:
                    raise
                logger.debug("ONNX Runtime copies the weights of a stage: %s", error)
        return None

    def _copying(self, model: bytes, threads: int | None) -> Any:
        import onnxruntime

        options = self._options(threads)
        options.add_external_initializers(list(self._values), list(self._values.values()))
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @staticmethod
    def _options(threads: int | None) -> Any:
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
        return options

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
