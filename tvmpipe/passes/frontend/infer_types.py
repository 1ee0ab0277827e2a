"""The types of a node's results where ONNX has no schema for it: those of what our converter makes of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvmpipe.errors import reason_of
from tvmpipe.passes.frontend.converters import converters
from tvmpipe.passes.frontend.converters.registry import OnnxNode
from tvmpipe.passes.frontend.dataflow import closed_blocks
from tvmpipe.passes.frontend.onnx_values import plain_domain, static_shape
from tvmpipe.passes.kernels.base import static_shape as relax_shape

logger = logging.getLogger(__name__)


def types_by_conversion(
    node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], constants: Mapping[str, onnx.TensorProto], opset: int
) -> dict[str, onnx.TypeProto]:
    """Name of a result -> its type; {} where no converter takes the node or an input is not known.

    `types` are those of the node's inputs, of static shapes; `constants` those inputs whose values are known, as far
    as they are small; `opset` is the version of ONNX's own operators.
    """
    from tvm import relax
    from tvm.relax.frontend.onnx import onnx_frontend

    converter = converters().get((plain_domain(node.domain), node.op_type))
    if converter is None:
        return {}
    builder = relax.BlockBuilder()
    parameters: dict[str, Any] = {}
    inputs: list[Any] = []
    for name in node.input:
        if not name:
            inputs.append(None)
        elif name in constants:
            inputs.append(relax.const(numpy_helper.to_array(constants[name])))
        elif name in parameters:
            inputs.append(parameters[name])
        else:
            shape = static_shape(types.get(name))
            if shape is None:
                return {}
            dtype = helper.tensor_dtype_to_np_dtype(types[name].tensor_type.elem_type).name
            parameters[name] = relax.Var(f"p{len(parameters)}", relax.TensorType(shape, dtype))
            inputs.append(parameters[name])
    attributes = onnx_frontend.ONNXGraphImporter._parse_attr(None, node.attribute)
    attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.output)}
    try:
        with closed_blocks(builder), builder.function("main", params=list(parameters.values())):
            with builder.dataflow():
                made = converter(OnnxNode(node.op_type, opset, inputs, attributes, builder, outputs=list(node.output)))
                results = list(made) if isinstance(made, relax.Tuple) else [made]
                kinds = [builder.normalize(result).ty for result in results]
                first = builder.emit_output(results[0])
            builder.emit_func_output(first)
    except Exception as error:  # noqa: BLE001  # the importer will say of this node why it cannot be converted
        logger.debug("the converter of node %s says nothing of its types: %s", node.name, reason_of(error))
        return {}
    found = {}
    for name, kind in zip(node.output, kinds, strict=False):
        shape = relax_shape(kind)
        if name and shape is not None:
            element = helper.np_dtype_to_tensor_dtype(np.dtype(str(kind.dtype)))
            found[name] = helper.make_tensor_type_proto(element, shape)
    return found
