"""A pipeline in the form of ONNX Runtime's `InferenceSession`, for programs that were written for that."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from tvmpipe.bundle import Bundle, load
from tvmpipe.errors import InputError, SampleError
from tvmpipe.runtime.head.connect import connect
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.tensors import TensorSpec

_ONNX_NAMES = {"float32": "float", "float64": "double", "float8_e4m3fn": "float8e4m3fn", "float8_e5m2": "float8e5m2"}
"""How ONNX Runtime spells types whose names differ from numpy's."""


@dataclass(frozen=True)
class NodeArg:
    """An input or output: `shape` has the name of a dimension where its extent may differ, `type` is as ONNX Runtime
    writes it: "tensor(float)"."""

    name: str
    shape: list[int | str | None]
    type: str


class InferenceSession:
    """A bundle on its devices, called as a session of ONNX Runtime is. A context manager; any thread may call it.

    `tracker` ("host:port") and further keywords are those of `tvmpipe.connect`, which also says what is raised.
    Several threads that call `run` have that many samples in the pipeline, as `run_async` has from one.
    """

    def __init__(self, bundle: Bundle | str | os.PathLike[str], *, tracker: str, **options: Any) -> None:
        given = load(Path(bundle)) if isinstance(bundle, str | os.PathLike) else bundle
        if given.manifest.sequences is not None:
            raise InputError(
                "the model has states, which stay on its devices: use tvmpipe.connect and sequence(), or compile it "
                "with --no-state"
            )
        self.pipeline: Pipeline = connect(given, tracker, **options)

    def __enter__(self) -> InferenceSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the devices."""
        self.pipeline.close()

    def get_inputs(self) -> list[NodeArg]:
        """The model's inputs, in its order."""
        return [self._described(spec) for spec in self.pipeline.manifest.sample_inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs, in its order."""
        return [self._described(spec) for spec in self.pipeline.manifest.model.outputs]

    def get_providers(self) -> list[str]:
        """What computes: this alone."""
        return ["TvmpipeExecutionProvider"]

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: None = None
    ) -> list[NDArray[Any]]:
        """The outputs of these names, of all where there is None, for inputs by name.

        Raises SampleError for names, shapes and types that the model has not, DeviceError as a pipeline does.
        """
        names = self._names(output_names, run_options)
        result = self.pipeline.submit(input_feed).result()
        return [result[name] for name in names]

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callable[[list[NDArray[Any]], Any, str], object],
        user_data: Any = None,
        run_options: None = None,
    ) -> None:
        """As `run`, without waiting: `callback` is called in another thread with the outputs, `user_data`, and an error
        as text, which is empty where there is none. Waits while the pipeline is full. Raises SampleError."""
        names = self._names(output_names, run_options)

        def done(future: Any) -> None:
            error = future.exception()
            outputs = [] if error is not None else [future.result()[name] for name in names]
            callback(outputs, user_data, "" if error is None else str(error))

        self.pipeline.submit(input_feed).add_done_callback(done)

    def _names(self, wanted: Sequence[str] | None, run_options: None) -> list[str]:
        if run_options is not None:
            raise InputError("run_options are ONNX Runtime's; what a pipeline may do is said when it is opened")
        names = [spec.name for spec in self.pipeline.manifest.model.outputs]
        for name in wanted or ():
            if name not in names:
                raise SampleError(f"output {name!r} is not one of the model's; allowed: {', '.join(names)}")
        return list(wanted or names)

    def _described(self, spec: TensorSpec) -> NodeArg:
        element = spec.element or spec.dtype
        extents = self.pipeline.manifest.extents_of(spec)
        return NodeArg(spec.name, extents, f"tensor({_ONNX_NAMES.get(element, element)})")
