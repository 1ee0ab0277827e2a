"""A simplified ONNX model -> Relax, with converters of our own, errors that name the node, and variables likewise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from tvmpipe.errors import UnsupportedModelError, reason_of
from tvmpipe.passes.frontend.converters import converters
from tvmpipe.passes.frontend.converters.registry import OnnxNode
from tvmpipe.passes.frontend.dataflow import closed_blocks, readers_of
from tvmpipe.passes.frontend.onnx_nodes import Origins, renamed
from tvmpipe.passes.frontend.simplify import quiet
from tvmpipe.passes.frontend.unsupported import STANDARD_DOMAINS, check_operators, label


def to_relax(model: onnx.ModelProto, nodes: Mapping[str, Origins]) -> Any:
    """The `tvm.IRModule` of a model; `nodes` are those behind its values, which variables remember (see onnx_nodes.py).

    Raises UnsupportedModelError that names the node.
    """
    from tvm import relax
    from tvm.relax.frontend.onnx import onnx_frontend

    own = converters()
    check_operators(model, frozenset((*onnx_frontend._get_convert_map(), "Constant", "If")), own.keys())

    class Importer(onnx_frontend.ONNXGraphImporter):  # type: ignore[misc]
        """TVM's importer with our converters before its own, remembering which node it is at."""

        current: onnx.NodeProto | None = None

        def _parse_value_proto(self, value_proto: Any) -> Any:
            if isinstance(value_proto, onnx.NodeProto):
                self.current = value_proto
            return super()._parse_value_proto(value_proto)

        def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
            """`check_operators` has done that."""

        def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
            domain = self.current.domain if self.current is not None else ""
            converter = own.get(("" if domain in STANDARD_DOMAINS else domain, op_name))
            if converter is None:
                return super()._convert_operator(op_name, inputs, attrs, opset)
            node = OnnxNode(op_name, opset, inputs, attrs, self.bb, [self._nodes, self._params])
            return self.bb.normalize(converter(node))

        def origins(self) -> dict[int, Origins]:
            """Hash of an expression that some node made -> its nodes; the first counts where others pass it on."""
            found: dict[int, Origins] = {}
            for name, behind in nodes.items():
                if name in self._nodes:
                    found.setdefault(hash(self._nodes[name]), behind)
            return found

    opset = next((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), 1)
    importer = Importer(shape_dict=_empty_inputs(model.graph), dtype_dict="float32", keep_params_in_input=False)
    try:
        with quiet(), closed_blocks(importer.bb):
            module = importer.from_onnx(model.graph, opset)
            module = _with_nodes(module, importer.origins())
            return relax.transform.Normalize()(module)
    except Exception as error:  # TVM raises every kind of exception from its converters
        at = importer.current
        where = f"node {label(at)} ({at.op_type})" if at is not None else "the model"
        raise UnsupportedModelError(f"TVM cannot import {where}: {reason_of(error)}") from error


def _empty_inputs(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """The shapes of inputs that have no elements: TVM's importer takes an extent of 0 for an open one."""
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.input}
    return {name: shape for name, shape in shapes.items() if 0 in shape}


def _with_nodes(module: Any, found: Mapping[int, Origins]) -> Any:
    """`module` whose variables in `main` remember their nodes.

    The importer binds an expression where it is first read, so that a node's result is found by what it is; what is
    between belongs to the node of its first reader.
    """
    from tvm import relax

    nodes: dict[Any, Origins] = {}
    readers = readers_of(module)
    for block in module["main"].body.blocks:
        if not isinstance(block, relax.DataflowBlock):
            continue  # control flow is left, which is refused later
        for binding in reversed(block.bindings):
            known = found.get(hash(binding.value), found.get(hash(binding.var)))
            if known is None:
                known = next((nodes[reader] for reader in readers.get(binding.var, ()) if reader in nodes), ())
            nodes[binding.var] = known
    # What only gives on another variable's value.
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if not nodes.get(binding.var) and isinstance(binding.value, relax.Var):
                nodes[binding.var] = nodes.get(binding.value, ())
    return renamed(module, nodes)
