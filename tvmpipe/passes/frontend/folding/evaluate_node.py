"""Run single ONNX nodes on known values, as ONNX Runtime would within a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

logger = logging.getLogger(__name__)

Array = NDArray[Any]


def evaluate(node: onnx.NodeProto, inputs: Mapping[str, Array], model: onnx.ModelProto) -> list[Array] | None:
    """The node's results, "" among its outputs left out as empty arrays; None where it cannot be run here.

    ONNX Runtime runs it; where that lacks the operator for these types, the reference implementation of the onnx
    package does.
    """
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape))
        for name, array in inputs.items()
    ]
    wanted = [name for name in node.output if name]
    results = [onnx.ValueInfoProto(name=name) for name in wanted]
    graph = helper.make_graph([node], "node", values, results)
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=min(model.ir_version, 10))
    computed = _in_onnxruntime(alone, wanted, inputs)
    if computed is None:
        computed = _in_reference(alone, wanted, inputs)
    if computed is None or any(isinstance(one, list) or one is None for one in computed):
        return None  # sequences and empty optionals, which the expansions of such nodes hold by their elements
    found = dict(zip(wanted, computed, strict=True))
    return [found.get(name, np.zeros(0)) for name in node.output]


def _in_onnxruntime(model: onnx.ModelProto, wanted: list[str], inputs: Mapping[str, Array]) -> list[Any] | None:
    from tvmpipe.passes.frontend.onnxruntime_session import session_of

    try:
        return list(session_of(model.SerializeToString()).run(wanted, dict(inputs)))
    except Exception as error:  # noqa: BLE001  # its exceptions have no common base
        logger.debug("ONNX Runtime does not run %s alone: %s", model.graph.node[0].op_type, error)
        return None


def _in_reference(model: onnx.ModelProto, wanted: list[str], inputs: Mapping[str, Array]) -> list[Any] | None:
    from onnx.reference import ReferenceEvaluator

    try:
        computed = ReferenceEvaluator(model).run(wanted, dict(inputs))
    except Exception as error:  # noqa: BLE001  # whatever it lacks, the node is left as it is
        logger.debug("the reference does not run %s: %s", model.graph.node[0].op_type, error)
        return None
    assert isinstance(computed, list)
    return [one if isinstance(one, list) or one is None else np.asarray(one) for one in computed]
