"""Primitives: which operators they hold, what they cost, how they connect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import tvmpipe
from tests.models import branchy, chain
from tvmpipe.passes import driver
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.stages import activation_bytes, derive_stages
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster


def graph_of(model: object) -> PrimitiveGraph:
    graph = driver.front(model).graph
    return graph


def test_dense_layers_fuse_with_their_activation() -> None:
    graph = graph_of(chain(3, 64))
    primitives = list(graph.by_name().values())
    assert [p.operators for p in primitives] == [("matmul", "tanh")] * 3
    assert [p.weight_bytes for p in primitives] == [64 * 64 * 4] * 3
    assert [p.input_bytes for p in primitives] == [4 * 64 * 4] * 3
    # 2 m n k for the product, and something for the activation.
    assert all(2 * 4 * 64 * 64 <= p.flops <= 2.2 * 4 * 64 * 64 for p in primitives)


def test_branches_are_edges(branchy_path: Path) -> None:
    graph = graph_of(branchy_path)
    dag = graph.digraph()
    stem = next(p.index for p in graph.primitives if "conv2d" in p.operators)
    assert dag.in_degree(stem) == 0
    assert max(dag.out_degree(node) for node in dag) >= 2
    assert max(dag.in_degree(node) for node in dag) >= 2
    assert set(graph.model_inputs) == {"image", "ids"}
    assert set(graph.model_outputs) == {"scores", "mask"}


def test_names_are_stable() -> None:
    assert list(graph_of(branchy()).by_name()) == list(graph_of(branchy()).by_name())


def test_weights_are_never_counted_as_tensors_between_primitives() -> None:
    graph = graph_of(chain(3, 64))
    made = {value for p in graph.primitives for value in p.outputs} | set(graph.model_inputs.values())
    assert all(value in made for p in graph.primitives for value in p.inputs)


def test_what_a_stage_holds() -> None:
    """A chain on one device: its input twice, and while a layer runs what that reads and writes."""
    graph = graph_of(chain(3, 64))
    (stage,) = derive_stages(graph, dict.fromkeys(graph.by_name(), ("d",)))
    assert activation_bytes(graph, stage) == (2 + 2) * 4 * 64 * 4


def test_special_values_follow_onnx() -> None:
    """NaN passes a Relu and a bound, also in scheduled loops; the maximum of -inf alone is -inf, at its first place."""
    nodes = [
        helper.make_node("Relu", ["x"], ["bent"]),
        helper.make_node("ReduceMax", ["x"], ["high"], axes=[1], keepdims=0),
        helper.make_node("ReduceMin", ["x"], ["low"], axes=[1], keepdims=1),
        helper.make_node("Clip", ["x", "zero", "one"], ["bound"]),
        helper.make_node("Max", ["bent", "bound"], ["larger"]),
        helper.make_node("ArgMax", ["x"], ["place"], axis=1),
        helper.make_node("ArgMin", ["x"], ["column"], axis=0),
    ]
    shapes = {"bent": [3, 4], "high": [3], "low": [3, 1], "bound": [3, 4], "larger": [3, 4]}
    places = {"place": [3, 1], "column": [1, 4]}
    graph = helper.make_graph(
        nodes,
        "special",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
        + [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in places.items()],
        [numpy_helper.from_array(np.array(number, np.float32), name) for name, number in (("zero", 0), ("one", 1))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    sample = np.array([[-1, np.nan, 2, -0.0], [-np.inf] * 4, [np.inf] * 4], dtype=np.float32)
    want = Reference(model.SerializeToString()).run({"x": sample})
    with run_in_process(tvmpipe.build(model, parse_cluster('[[device]]\nname = "d"\nthreads = 1\n'))) as pipe:
        have = pipe.run({"x": sample})
    for name in ("bent", "bound", "larger"):
        assert np.array_equal(have[name], want[name], equal_nan=True)
    assert have["place"].ravel().tolist() == [1, 0, 0]
    assert have["column"].ravel().tolist() == [1, 0, 1, 1]
    for name in ("high", "low"):  # of the rows without NaN, where ONNX says what comes out
        assert np.array_equal(have[name][1:], want[name][1:])
