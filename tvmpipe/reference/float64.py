"""A model's results in float64, which decide where two float32 programs differ by more than they should.

ONNX Runtime has float64 kernels for some operators only (none for convolutions); where one is missing, onnx's own
reference evaluator computes the model, slowly and in numpy.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

logger = logging.getLogger(__name__)

_NARROW = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type")
_MOST_BYTES = 2**30 - 2**20  # of a model: with twice that, protobuf can still hand it to ONNX Runtime


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model with every float32, float16 and bfloat16 number as float64. Weights must be in it."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    _widen_graph(wide.graph)
    for function in wide.functions:
        _widen_nodes(function.node)
    return wide


def float64_results(model: onnx.ModelProto, sample: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]] | None:
    """Outputs by name, floating-point ones in float64; None where neither evaluator can compute the model so."""
    if model.ByteSize() > _MOST_BYTES:
        logger.info("no float64 reference for a model of more than 1 GiB")
        return None
    wide = widened(model)
    feed = {
        name: array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in sample.items()
    }
    names = [value.name for value in wide.graph.output]
    try:
        results = _onnxruntime(wide, names, feed)
    except Exception as error:  # noqa: BLE001  # no kernel for float64, most often; each release lacks others
        logger.debug("ONNX Runtime cannot compute the model in float64: %s", error)
        try:
            results = _reference_evaluator(wide, feed)
        except Exception as other:  # noqa: BLE001  # it knows neither every operator nor every attribute
            logger.info("no float64 reference for this model: %s", other)
            return None
    return dict(zip(names, results, strict=True))


def _onnxruntime(model: onnx.ModelProto, names: list[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[NDArray[Any]] = session.run(names, dict(feed))
    return results


def _reference_evaluator(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):
        """What inference computes; onnx's own mixes the sample's moments into it in opsets 9 to 13."""

        op_domain = ""

        def _run(
            self, x: Any, scale: Any, bias: Any, mean: Any, variance: Any, epsilon: float = 1e-5, **_: Any
        ) -> tuple[Any]:
            s, b, m, v = (array.reshape(-1, *(1,) * (x.ndim - 2)) for array in (scale, bias, mean, variance))
            return (s * (x - m) / np.sqrt(v + epsilon) + b,)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        evaluator = ReferenceEvaluator(model, new_ops=[BatchNormalization])
        results: Any = evaluator.run(None, dict(feed))
    return list(results)


def graphs_of(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph and those inside its nodes: branches and bodies of loops."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            if attribute.type == onnx.AttributeProto.GRAPH:
                waiting.append(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                waiting.extend(attribute.graphs)


def _widen_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in _NARROW:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del graph.value_info[:]
    _widen_nodes(graph.node)


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.type == onnx.AttributeProto.INT:
                if attribute.i in _NARROW:
                    attribute.i = TensorProto.DOUBLE
            elif attribute.type == onnx.AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            elif attribute.type == onnx.AttributeProto.GRAPH:
                _widen_graph(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for graph in attribute.graphs:
                    _widen_graph(graph)
            elif node.op_type == "Constant" and attribute.name == "value_float":
                attribute.CopyFrom(onnx.helper.make_attribute("value", _scalar(attribute.f)))
            elif node.op_type == "Constant" and attribute.name == "value_floats":
                attribute.CopyFrom(onnx.helper.make_attribute("value", numpy_helper.from_array(_vector(attribute))))


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        array = np.asarray(numpy_helper.to_array(tensor), dtype=np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _scalar(number: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(number, dtype=np.float64))


def _vector(attribute: onnx.AttributeProto) -> NDArray[np.float64]:
    return np.asarray(attribute.floats, dtype=np.float64)
