"""What is known of the values of a model before it runs, and what a seeded sample makes of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, shape_inference

from tvmpipe.passes.frontend.agreement import ask_for, runnable, seeded_sample
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.passes.frontend.unsupported import DTYPES
from tvmpipe.passes.frontend.weightless import large_weights, without_weights
from tvmpipe.tensors import TensorSpec

logger = logging.getLogger(__name__)

_SAMPLES = 2
_ORT_TYPES = {
    **{f"tensor({name})": getattr(onnx.TensorProto, name.upper()) for name in ("float", "double", "float16", "bool")},
    **{
        f"tensor({sign}int{bits})": getattr(onnx.TensorProto, f"{sign}int{bits}".upper())
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
    "tensor(string)": onnx.TensorProto.STRING,
    "tensor(bfloat16)": onnx.TensorProto.BFLOAT16,
}


@dataclass(frozen=True)
class ValueType:
    """Of a tensor: the element type, as ONNX numbers them, 0 for what is not known or no tensor; the shape, None where
    not even the number of axes is known, with None for extents that are not.
    """

    kind: int
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        """For people: "float32[1,?]"; "?" for what is not known or no tensor."""
        if not self.kind:
            return "?"
        name = onnx.TensorProto.DataType.Name(self.kind).lower() if self.dtype is None else self.dtype
        if self.shape is None:
            return f"{name}[...]"
        return f"{name}[{','.join('?' if extent is None else str(extent) for extent in self.shape)}]"

    @property
    def dtype(self) -> str | None:
        """As numpy spells it; None for what cannot travel between stages: strings, sequences, halves of other forms."""
        if self.kind in (0, onnx.TensorProto.STRING):
            return None
        name = np.dtype(helper.tensor_dtype_to_np_dtype(self.kind)).name
        return name if name in DTYPES else None

    @property
    def static(self) -> tuple[int, ...] | None:
        """The shape where all of it is known."""
        if self.shape is None:
            return None
        known = tuple(extent for extent in self.shape if extent is not None)
        return known if len(known) == len(self.shape) else None


_UNKNOWN = ValueType(0, None)


def read_types(node: onnx.NodeProto, types: Mapping[str, ValueType]) -> str:
    """What a node reads, for people: "the Add reads float32[2,3] and float32[]"."""
    read = [str(types.get(name, _UNKNOWN)) for name in node.input if name] or ["nothing"]
    return f"the {node.op_type} reads {' and '.join(filter(None, (', '.join(read[:-1]), read[-1])))}"


def value_types(model: onnx.ModelProto) -> dict[str, ValueType]:
    """Types of the values of a model's graph, as far as ONNX or ONNX Runtime can tell."""
    stub = without_weights(model, large_weights(model))
    found = _inferred(stub)
    for name, told in _told_by_onnxruntime(stub).items():
        known = found.get(name, _UNKNOWN)
        # ONNX Runtime says [] of a scalar and of what it knows nothing of.
        shape = known.shape if known.shape is not None else told.shape or None
        if shape and told.shape and len(shape) == len(told.shape):
            shape = tuple(a if a is not None else b for a, b in zip(shape, told.shape, strict=True))
        found[name] = ValueType(known.kind or told.kind, shape)
    return found


def _inferred(stub: onnx.ModelProto) -> dict[str, ValueType]:
    found = {tensor.name: ValueType(tensor.data_type, tuple(tensor.dims)) for tensor in stub.graph.initializer}
    graph = inferred_types(stub).graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if value.type.HasField("tensor_type"):
            dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
            found[value.name] = ValueType(tensor.elem_type, dims if tensor.HasField("shape") else None)
    return found


def inferred_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the types of values that ONNX infers, in graphs inside nodes too; as it is where ONNX does not."""
    try:
        return shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # noqa: BLE001  # it raises what C++ raised; what the model declares is left
        logger.debug("ONNX infers no types: %s", error)
        return model


def _told_by_onnxruntime(stub: onnx.ModelProto) -> dict[str, ValueType]:
    """Types of what nodes make, those of operators that only ONNX Runtime has among them; these are outputs then."""
    ask_for(stub, [name for node in stub.graph.node for name in node.output if name])
    try:
        session = session_of(stub.SerializeToString())
    except Exception as error:  # noqa: BLE001  # its exceptions have no common base
        logger.debug("ONNX Runtime does not load the model: %s", error)
        return {}
    return {
        value.name: ValueType(
            _ORT_TYPES.get(value.type, 0),
            tuple(extent if isinstance(extent, int) else None for extent in value.shape),
        )
        for value in session.get_outputs()
    }


def sampled(
    model: onnx.ModelProto, inputs: Sequence[TensorSpec], names: Collection[str]
) -> list[Mapping[str, NDArray[Any]]]:
    """What the values `names` are for some seeded samples; nothing where ONNX Runtime does not run the model."""
    weights = large_weights(model)
    wanted = [name for name in dict.fromkeys(names) if name not in weights]
    given = {spec.name for spec in inputs}
    made = [name for name in wanted if name not in given]
    try:
        one = runnable(model, made)
        found: list[Mapping[str, NDArray[Any]]] = []
        for seed in range(_SAMPLES):
            sample = seeded_sample(inputs, seed)
            results = dict(zip(made, one.run(sample), strict=True)) if made else {}
            found.append(
                {name: value for name, value in {**sample, **results}.items() if isinstance(value, np.ndarray)}
            )
        return found
    except Exception as error:  # noqa: BLE001  # its exceptions have no common base
        logger.debug("ONNX Runtime does not run the model: %s", error)
        return []
