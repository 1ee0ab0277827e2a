"""tvmpipe behind `onnx.backend.base.Backend`, which is what the onnx package and its public scoreboard test.

A model is compiled for one device of one thread and runs in this process. There are three ways, tried in this order:

"pass"       TVM compiles the whole model when it is prepared.
"constants"  TVM compiles it once the inputs that decide shapes or axes are constants: models have such constants, node
             tests give them at run time. It is compiled for the values of each run, and kept for runs with the same.
"fallback"   ONNX Runtime runs the nodes that TVM cannot compile, in stages of their own.

Nothing here reads other files of tvmpipe's repository but `deciding_inputs.py`, so that the two can be copied.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt

from tvmpipe.build import build
from tvmpipe.errors import InputError
from tvmpipe.passes.frontend.inputs.fix_dimensions import inputs_of
from tvmpipe.passes.frontend.onnx_values import held_type, static_shape
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

from .deciding_inputs import deciding_inputs

Way = Literal["pass", "constants", "fallback"]
Array = NDArray[Any]
Value = Array | list[Array] | None
Told = Mapping[str, Any]

_UNREAD = "tvmpipe/unread"


class TvmpipeRep(BackendRep):
    """A model that can be run; `way` is how it was in its last run, and `refused` why TVM alone does not compile it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.way: Way = "pass"
        self.refused = ""
        self._model = model
        self._deciding = deciding_inputs(model) & {value.name for value in inputs_of(model)}
        self._programs: dict[bytes, tuple[Way, _Program]] = {}
        if all(_is_static(value.type) for value in inputs_of(model)):
            self._alone({})

    def run(self, inputs: Sequence[Value], **kwargs: Any) -> tuple[Value, ...]:
        """The outputs, in the model's order. `inputs` are in the order of the model's.

        Sequences are lists, and an optional that holds nothing is None. Raises BackendIsNotSupposedToImplementIt where
        neither TVM nor ONNX Runtime runs the model.
        """
        sample = dict(zip((value.name for value in inputs_of(self._model)), inputs, strict=True))
        self.way, program = self._program(sample)
        return program.run(sample)

    def _program(self, sample: Mapping[str, Value]) -> tuple[Way, _Program]:
        told = _told(self._model, sample)
        values = {name: sample[name] for name in sorted(self._deciding)}
        key = pickle.dumps((told, values))
        found = self._alone(told) or self._programs.get(key)
        if found is None:
            found = self._programs[key] = self._with_values(told, values) or self._left(told)
        return found

    def _alone(self, told: Told) -> tuple[Way, _Program] | None:
        key = pickle.dumps(told)
        if key not in self._programs and not self.refused:
            try:
                self._programs[key] = "pass", _Program(self._model, told, fallback=False)
            except InputError as error:
                self.refused = str(error)
        return self._programs.get(key)

    def _with_values(self, told: Told, values: Mapping[str, Value]) -> tuple[Way, _Program] | None:
        if not values:
            return None
        more = {**told, "values": {**told.get("values", {}), **values}}
        try:
            return "constants", _Program(self._model, more, fallback=False)
        except InputError as error:
            self.refused = str(error)
        return None

    def _left(self, told: Told) -> tuple[Way, _Program]:
        try:
            return "fallback", _Program(self._model, told, fallback=True)
        except InputError as error:
            raise BackendIsNotSupposedToImplementIt(str(error)) from error


class _Program:
    """A model as it was compiled, loaded."""

    def __init__(self, model: onnx.ModelProto, told: Told, *, fallback: bool) -> None:
        cluster = parse_cluster('[[device]]\nname = "host"\nthreads = 1\n')
        bundle = build(_with_input(model, told), cluster, fallback=fallback, stateful=False, **told)
        self._pipe = run_in_process(bundle)
        self._read = [spec.name for spec in bundle.manifest.model.inputs]
        self._inputs, self._outputs = inputs_of(model), list(model.graph.output)

    def run(self, sample: Mapping[str, Value]) -> tuple[Value, ...]:
        elements = {_UNREAD: np.zeros(1, np.float32)}
        for one in self._inputs:
            elements.update(_elements(one.name, sample[one.name], one.type))
        results = self._pipe.run({name: elements[name] for name in self._read})
        return tuple(_gathered(one, results) for one in self._outputs)


def _with_input(model: onnx.ModelProto, told: Told) -> onnx.ModelProto:
    """The model, with an input that nothing reads where it has none: a pipeline runs when its inputs come."""
    if {value.name for value in inputs_of(model)} - set(told.get("values", {})):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.input.append(helper.make_tensor_value_info(_UNREAD, onnx.TensorProto.FLOAT, [1]))
    return copy


def _is_static(kind: onnx.TypeProto) -> bool:
    return static_shape(kind) is not None


def _told(model: onnx.ModelProto, sample: Mapping[str, Value]) -> Told:
    """What a user would say of open dimensions, sequences and optionals: arguments of `build`."""
    shapes: dict[str, Sequence[int]] = {}
    values: dict[str, None] = {}
    for one in inputs_of(model):
        value = sample[one.name]
        if _is_static(one.type):
            continue
        if value is None or (isinstance(value, list) and not value):
            values[one.name] = None
            continue
        if isinstance(value, list):
            shapes[one.name] = [len(value)]
        shapes.update((name, array.shape) for name, array in _elements(one.name, value, one.type))
    return {"shapes": shapes, "values": values} if shapes or values else {}


def _elements(name: str, value: Value, kind: onnx.TypeProto) -> Iterator[tuple[str, Array]]:
    """Inputs as tvmpipe calls them: elements of sequences, and what optionals hold, are inputs of their own."""
    parts = value if isinstance(value, list) else [] if value is None else [value]
    if held_type(kind) is None:
        yield from ((name, array) for array in parts)
    else:
        yield from ((f"{name}/{number}", array) for number, array in enumerate(parts))


def _gathered(output: onnx.ValueInfoProto, results: Mapping[str, Array]) -> Value:
    """An output of the model, of its elements where it has such."""
    if held_type(output.type) is None:
        return results[output.name]
    parts: list[Array] = []
    while (name := f"{output.name}/{len(parts)}") in results:
        parts.append(results[name])
    of_one = output.type.optional_type.elem_type.HasField("tensor_type")
    return (parts[0] if parts else None) if of_one else parts


class TvmpipeBackend(Backend):
    """The onnx package's interface to tvmpipe. Its one device is the CPU."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> TvmpipeRep:
        """Compile a model, as far as that can be done without its inputs."""
        return TvmpipeRep(model)

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Sequence[Array], device: str = "CPU", **kwargs: Any) -> Any:
        """Outputs of a model for one sample."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> Any:
        """Outputs of a single node, which the operator set `opset_version` (by default the newest) defines.

        `outputs_info` says of each output its numpy element type and shape; without, they are inferred.
        """
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        return cls.run_model(_model_of(node, inputs, outputs_info, version), inputs, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether models run on a device, as the onnx package writes it: "CPU", "CUDA:1"."""
        return device.split(":")[0] == "CPU"


def _model_of(node: onnx.NodeProto, inputs: Sequence[Array], outputs_info: Any, version: int) -> onnx.ModelProto:
    """A model of one node. Inputs that it leaves out have no array."""
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip((name for name in node.input if name), inputs, strict=True)
    ]
    names = [name for name in node.output if name]
    made = [onnx.ValueInfoProto(name=name) for name in names]
    if outputs_info is not None:
        made = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)
            for name, (dtype, shape) in zip(names, outputs_info, strict=True)
        ]
    imports = [helper.make_opsetid(node.domain, version)]
    model = helper.make_model(helper.make_graph([node], "node", given, made), opset_imports=imports)
    inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return inferred


prepare = TvmpipeBackend.prepare
run_model = TvmpipeBackend.run_model
run_node = TvmpipeBackend.run_node
supports_device = TvmpipeBackend.supports_device
is_compatible = TvmpipeBackend.is_compatible
