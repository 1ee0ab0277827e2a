"""FLOPs of ONNX nodes: two for each multiplication with an addition, one for each element elsewhere."""

from __future__ import annotations

import pytest
from onnx import NodeProto, TensorProto, helper

from tests.fallback_models import only_fallback
from tvmpipe.passes.frontend.fallback.flops import flops_of_nodes
from tvmpipe.passes.frontend.import_onnx import import_onnx

SHAPES = {
    "image": (2, 6, 9, 9),
    "filters": (8, 3, 3, 3),
    "made": (2, 8, 7, 7),
    "up": (6, 4, 2, 2),
    "upped": (2, 4, 18, 18),
    "a": (5, 7, 11),
    "b": (11, 13),
    "ab": (5, 7, 13),
    "t": (11, 7),
    "tb": (7, 13),
    "steps": (10, 2, 3),
    "w": (1, 16, 3),
    "r": (1, 16, 4),
    "hidden": (10, 1, 2, 4),
    "q": (2, 10, 64),
    "k": (2, 20, 64),
    "boxes": (1, 100, 4),
    "found": (3, 3),
    "one": (),
}


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        (helper.make_node("Conv", ["image", "filters"], ["made"], group=2), 2 * (2 * 8 * 7 * 7) * 3 * 9),
        (helper.make_node("QLinearConv", ["image", "", "", "filters", "", ""], ["made"]), 2 * (2 * 8 * 7 * 7) * 27),
        (helper.make_node("ConvTranspose", ["image", "up"], ["upped"]), 2 * (2 * 6 * 81) * 16),
        (helper.make_node("MatMul", ["a", "b"], ["ab"]), 2 * 5 * 7 * 13 * 11),
        (helper.make_node("Gemm", ["t", "b"], ["tb"], transA=1), 2 * 7 * 13 * 11),
        (helper.make_node("LSTM", ["steps", "w", "r"], ["hidden"], hidden_size=4), 2 * 10 * 2 * 16 * 7),
        (helper.make_node("MultiHeadAttention", ["q", "k", "k"], ["q"]), 2 * 2 * 2 * 10 * 20 * 64),
        (helper.make_node("NonMaxSuppression", ["boxes"], ["found"]), 400),
        (helper.make_node("Add", ["a", "one"], ["a"]), 385),
        (helper.make_node("Unknown", ["nothing"], ["known"]), 0),
    ],
)
def test_of_a_node(node: NodeProto, wanted: int) -> None:
    assert flops_of_nodes([node], SHAPES) == wanted


def test_a_graph_inside_counts_once() -> None:
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["inside"])],
        "then",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, [5, 7, 13])],
    )
    node = helper.make_node("If", ["one"], ["ab"], then_branch=inner, else_branch=inner)
    assert flops_of_nodes([node], SHAPES) == 2 * (2 * 5 * 7 * 13 * 11) + 5 * 7 * 13
    # Types inside a loop are inferred.
    (group,) = import_onnx(only_fallback(), {}, {}, fallback=True).groups
    assert 2 * 64 * 48 * 384 <= group.flops < 2.2 * 64 * 48 * 384
