"""Every primitive knows the ONNX nodes that it computes, whatever became of them on the way."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise
from typing import Any

import onnx
import pytest
from onnx import helper

from benchmarks.models import bert
from tests.models import branchy, chain
from tests.passes.compiled import model_of, normal
from tests.passes.networks import resnet_like, transformer_like
from tests.passes.rewrite.test_find_norms import layer_norm_pieces, rms_pieces
from tests.passes.rewrite.test_fuse import graph_of
from tvmpipe.passes.frontend.trace_nodes import node_label
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.profiling.experiments import KINDS, experiments

NETWORKS = {
    "branchy": branchy(),
    "chain": chain(3, 64),
    "resnet": resnet_like(),
    "transformer": transformer_like(),
    **{one.name: one.model for one in islice(experiments(), len(KINDS))},
}
# Operators that are one kernel each, alone or within a larger one.
KERNELS = ("Conv", "Gemm", "MatMul", "Softmax", "LayerNormalization", "MaxPool", "AveragePool", "GlobalAveragePool")
LAYOUT = {"pack", "unpack_channels", "reshape", "take_columns"}


def nodes_in(graph: PrimitiveGraph) -> list[tuple[str, ...]]:
    return [primitive.onnx_nodes for primitive in graph.primitives]


@pytest.mark.parametrize("name", NETWORKS)
def test_each_node_with_a_kernel_is_in_one_primitive(name: str) -> None:
    model = NETWORKS[name]
    graph = graph_of(model)
    found = Counter(node for nodes in nodes_in(graph) for node in nodes)
    given = [node_label(node) for node in model.graph.node]
    assert set(found) <= set(given)
    for node in model.graph.node:
        if node.op_type in KERNELS:
            assert found[node_label(node)] == 1, f"{node_label(node)} is in {found[node_label(node)]} primitives"
        elif node.op_type != "Constant":
            assert found[node_label(node)] >= 1, f"{node_label(node)} is in no primitive"
    for primitive in graph.primitives:
        assert list(primitive.onnx_nodes) == sorted(primitive.onnx_nodes, key=given.index)
        assert primitive.onnx_nodes or LAYOUT.intersection(primitive.operators), primitive.name


def test_they_are_the_right_ones() -> None:
    """Batch norms folded into convolutions, and three projections and two layers that share their functions."""
    residual = nodes_in(graph_of(resnet_like(blocks=1)))
    assert residual[0] == ("Conv:t0", "BatchNormalization:t1", "Relu:t2")
    assert ("Conv:t7", "BatchNormalization:t8", "Add:t9", "Relu:t10") in residual
    graph = graph_of(transformer_like(layers=2))
    projections = [p for p in graph.primitives if p.function == "fused_matmul_add"]
    assert len(projections) == 8
    assert [p.onnx_nodes for p in projections[:3]] == [
        ("MatMul:t1", "Add:t2"),
        ("MatMul:t5", "Add:t6"),
        ("MatMul:t9", "Add:t10"),
    ]
    attention = [p.onnx_nodes for p in graph.primitives if p.operators == ("attention",)]
    first = ("MatMul:t13", "Div:t14", "Add:t15", "Softmax:t16", "MatMul:t17")
    assert attention == [first, tuple(f"{kind}:t{int(number) + 34}" for kind, number in (n.split(":t") for n in first))]


def test_many_residual_connections() -> None:
    """Each doubles the ways from a node to the input; what is known of a node must not double with them."""
    layers = 64
    values = [*(f"x{layer}" for layer in range(layers)), "y"]
    nodes = []
    for layer, (read, written) in enumerate(pairwise(values)):
        nodes.append(helper.make_node("MatMul", [read, "w"], [f"t{layer}"]))
        nodes.append(helper.make_node("Add", [f"t{layer}", read], [written]))
    model = model_of(nodes, {"x0": [2, 8]}, {"w": normal(1, 8, 8, scale=0.1)})
    found = [node for nodes in nodes_in(graph_of(model)) for node in nodes]
    assert found == [node_label(node) for node in nodes]


def test_norms_in_pieces() -> None:
    for model in (
        layer_norm_pieces([2, 7, 29], [-1], normal(1, 29)),
        layer_norm_pieces([3, 7, 29], [1, 2], normal(1, 7, 29)),
        rms_pieces("Pow", "Reciprocal", last=False, n=37),
    ):
        everything = tuple(node_label(node) for node in model.graph.node)
        assert [nodes for nodes in nodes_in(graph_of(model)) if nodes] == [everything]


def test_equal_nodes_are_told_apart() -> None:
    """Two branches that do the same to the same tensor, and go on differently, keep their own nodes."""
    nodes: list[onnx.NodeProto] = []
    for side, last in (("left", "Tanh"), ("right", "Sigmoid")):
        nodes.append(helper.make_node("MatMul", ["x", side], [f"{side}_m"], name=f"{side}/dense"))
        nodes.append(helper.make_node(last, [f"{side}_m"], [f"{side}_a"], name=f"{side}/bend"))
    nodes.append(helper.make_node("Add", ["left_a", "right_a"], ["y"], name="join"))
    weights: dict[str, Any] = {"left": normal(1, 16, 16), "right": normal(1, 16, 16)}
    found = Counter(node for part in nodes_in(graph_of(model_of(nodes, {"x": [4, 16]}, weights))) for node in part)
    assert all(found[node_label(node)] == 1 for node in nodes), found


def test_an_exported_transformer() -> None:
    model = bert("bert", layers=2, width=64, heads=4, tokens=16)
    found = Counter(node for nodes in nodes_in(graph_of(model)) for node in nodes)
    products = [node_label(node) for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert len(products) >= 12
    assert [found[name] for name in products] == [1] * len(products)
