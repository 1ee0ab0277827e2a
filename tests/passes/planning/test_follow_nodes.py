"""A bucket's primitives go where the same ONNX nodes are in the bucket that was planned."""

from __future__ import annotations

from collections.abc import Sequence

from tvmpipe.passes.graph.primitives import Primitive, PrimitiveGraph, Value
from tvmpipe.passes.planning.follow_nodes import follow_nodes
from tvmpipe.tensors import TensorSpec


def chain(*nodes: Sequence[str]) -> PrimitiveGraph:
    """Primitives that read each other's results, each with these ONNX nodes."""
    spec = TensorSpec(name="t", shape=(1,), dtype="float32")
    primitives = tuple(
        Primitive(
            index=index,
            name=f"p{index}",
            function="f",
            operators=("f",),
            inputs=(index,),
            outputs=(index + 1,),
            weight_bytes=0,
            input_bytes=4,
            output_bytes=4,
            flops=1.0,
            constant=False,
            call=None,
            onnx_nodes=tuple(mine),
        )
        for index, mine in enumerate(nodes)
    )
    values = tuple(Value(number, spec, number - 1 if number else None) for number in range(len(nodes) + 1))
    return PrimitiveGraph(primitives, values, {"x": 0}, {"y": len(nodes)}, {})


REFERENCE = chain(["a"], ["b", "c"], ["d", "e"])
PLACED = {"p0": ("alpha",), "p1": ("beta",), "p2": ("gamma", "delta")}


def followed(*nodes: Sequence[str]) -> list[str]:
    placement = follow_nodes(chain(*nodes), REFERENCE, PLACED)
    return ["+".join(placement[f"p{index}"]) for index in range(len(nodes))]


def test_nodes_that_are_fused_otherwise_stay_where_they_are() -> None:
    assert followed(["a"], ["b"], ["c"], ["d", "e"]) == ["alpha", "beta", "beta", "gamma+delta"]
    assert followed(["a", "b", "c"], ["d"], ["e"]) == ["beta", "gamma+delta", "gamma+delta"]


def test_a_change_of_layout_goes_with_what_reads_it_and_at_the_end_with_what_it_reads() -> None:
    assert followed(["a"], [], [], ["b"], ["d"], []) == ["alpha", "beta", "beta", "beta", "gamma+delta", "gamma+delta"]


def test_what_has_nothing_in_common_with_the_reference_is_still_placed() -> None:
    assert followed(["x"], ["y"]) == ["alpha", "alpha"]
