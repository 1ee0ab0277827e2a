"""The size of a head in a cache that the file leaves open, as onnxruntime-genai's builder does: it follows from what
GroupQueryAttention is given."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx

from tvmpipe.passes.frontend.agreement import ask_for
from tvmpipe.passes.frontend.inputs.fix_dimensions import inputs_of
from tvmpipe.passes.frontend.onnx_values import attribute_of
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.passes.frontend.signature import State
from tvmpipe.passes.frontend.weightless import large_weights, without_weights

_OPERATOR = "GroupQueryAttention"
_PAST = (3, 4)  # of its inputs, keys and values [batch, groups, past, size]
_QUERY, _KEY = 0, 1
_SIZE = 3  # of the axes of a past


def fix_head_sizes(model: onnx.ModelProto, states: Sequence[State], given: Collection[str]) -> None:
    """Give open dimensions of states that are heads' sizes their extents, wherever the model's inputs have them.

    Dimensions whose names are `given` stay as they are.
    """
    inputs = {value.name: value for value in inputs_of(model)}
    wanted: dict[str, tuple[str, int]] = {}  # a dimension's name -> a value, and what its last extent is divided by
    for state in states:
        dims = inputs[state.name].type.tensor_type.shape.dim
        name = dims[_SIZE].dim_param if len(dims) > _SIZE else ""
        for node in _readers(model, state.name) if name and name not in given else ():
            groups, heads = (int(attribute_of(node, key, 0)) for key in ("kv_num_heads", "num_heads"))
            packed = not node.input[_KEY]  # queries, keys and values behind one another
            wanted[name] = node.input[_QUERY if packed else _KEY], (heads + 2 * groups if packed else groups)
    widths = _last_extents(model, {value for value, _ in wanted.values()}) if wanted else {}
    sizes = {name: widths[value] // count for name, (value, count) in wanted.items() if value in widths and count}
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]


def _readers(model: onnx.ModelProto, name: str) -> Iterator[onnx.NodeProto]:
    for node in model.graph.node:
        if node.op_type == _OPERATOR and any(place < len(node.input) and node.input[place] == name for place in _PAST):
            yield node


def _last_extents(model: onnx.ModelProto, names: set[str]) -> Mapping[str, int]:
    """Extents along the last axis, as far as ONNX Runtime knows them: it infers shapes through its own operators."""
    stub = without_weights(model, large_weights(model))
    ask_for(stub, sorted(names))
    shapes = {one.name: one.shape for one in session_of(stub.SerializeToString()).get_outputs()}
    return {name: shape[-1] for name, shape in shapes.items() if shape and isinstance(shape[-1], int)}
