"""Models of which ONNX Runtime must run a part."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
_CELLS = 8 * 8


def detector(seed: int = 0) -> onnx.ModelProto:
    """A small detector: `image` float32[1,3,16,16] -> `found` float32[?,4] boxes, `score` float32[1,64], `cells`.

    A convolutional backbone, NonMaxSuppression over its 64 boxes, and the boxes that are left, gathered; `cells`
    int64[1,?] are the cells whose score is above a half.
    """
    generator = np.random.default_rng(seed)
    weights: dict[str, NDArray[Any]] = {
        "w1": generator.normal(0, 0.4, (8, 3, 3, 3)),
        "w2": generator.normal(0, 0.4, (5, 8, 1, 1)),
        "place": np.stack(np.meshgrid(range(8), range(8), [1], indexing="ij"), -1).reshape(1, 64, 3)[..., [0, 1, 2, 2]],
    }
    constants: dict[str, NDArray[Any]] = {
        "flat": np.array([1, 5, _CELLS]),
        "one": np.array([1]),
        "four": np.array([4, 1]),
        "most": np.array(64),
        "iou": np.array(0.1, np.float32),
        "least": np.array(0.5, np.float32),
        "column": np.array([2]),
    }
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    tensors += [numpy_helper.from_array(array, name) for name, array in constants.items()]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2], name="stem"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="head"),
        helper.make_node("Reshape", ["c2", "flat"], ["rows"]),
        helper.make_node("Split", ["rows", "four"], ["offsets", "logits"], axis=1),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Transpose", ["offsets"], ["moved"], perm=[0, 2, 1]),
        helper.make_node("Add", ["moved", "place"], ["boxes"]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["kept"], name="nms"),
        helper.make_node("Gather", ["kept", "column"], ["ids"], axis=1, name="pick"),
        helper.make_node("Squeeze", ["ids", "one"], ["flat_ids"]),
        helper.make_node("Squeeze", ["boxes"], ["all_boxes"]),
        helper.make_node("Gather", ["all_boxes", "flat_ids"], ["found"], axis=0, name="take"),
        helper.make_node("Squeeze", ["scores", "one"], ["score"]),
        helper.make_node("Greater", ["score", "least"], ["above"]),
        helper.make_node("NonZero", ["above"], ["cells"], name="above_half"),
    ]
    return _model(
        nodes,
        {"image": (FLOAT, [1, 3, 16, 16])},
        {"found": FLOAT, "score": FLOAT, "cells": INT64},
        tensors,
    )


def images(count: int) -> list[dict[str, NDArray[Any]]]:
    """Samples of `detector` that find different numbers of boxes."""
    return [
        {"image": np.random.default_rng(seed).normal(0, 0.3 + seed, (1, 3, 16, 16)).astype(np.float32)}
        for seed in range(count)
    ]


def foreign(operator: str = "Foo") -> onnx.ModelProto:
    """An operator that nobody has, between two that TVM compiles."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node(operator, ["r"], ["f"], domain="com.unknown", name="theirs"),
        helper.make_node("Exp", ["f"], ["y"]),
    ]
    model = _model(nodes, {"x": (FLOAT, [2, 3])}, {"y": FLOAT}, [])
    model.opset_import.append(helper.make_opsetid("com.unknown", 1))
    return model


def only_fallback() -> onnx.ModelProto:
    """`x` float32[64,48] -> `y` of the same shape, `steps` float32[?]: nothing that TVM compiles; 72 kB of weights.

    The sum of `x` grows until it is 4000: large inputs take one step, small ones several.
    """
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(0, 0.1, (48, 384)).astype(np.float32), "w")
    seen = helper.make_graph(
        [
            helper.make_node("MatMul", ["a", "w"], ["wide"]),
            helper.make_node("ReduceMax", ["wide"], ["largest"], axes=[1], keepdims=1),
            helper.make_node("Add", ["a", "largest"], ["a1"]),
            helper.make_node("ReduceSum", ["a1"], ["sum"], keepdims=0),
            helper.make_node("Less", ["sum", "enough"], ["again"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", FLOAT, [64, 48]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a1", FLOAT, [64, 48]),
            helper.make_tensor_value_info("sum", FLOAT, []),
        ],
    )
    constants = {"yes": np.array(True), "enough": np.array(4000, np.float32), "many": np.array(50)}
    tensors = [weight, *(numpy_helper.from_array(array, name) for name, array in constants.items())]
    nodes = [
        helper.make_node("Loop", ["many", "yes", "x"], ["y", "sums"], body=seen, name="until_enough"),
        helper.make_node("Unique", ["sums"], ["steps"], name="each_once"),
    ]
    return _model(nodes, {"x": (FLOAT, [64, 48])}, {"y": FLOAT, "steps": FLOAT}, tensors)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int]]],
    outputs: dict[str, int],
    tensors: list[onnx.TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
