"""Graphs inside nodes, sequences and optionals."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from benchmarks.random_graphs.pool import Pool, Value
from benchmarks.random_graphs.proposal import Proposal, makes

_UNARY = ("Relu", "Neg", "Abs", "Identity", "Tanh", "Sigmoid", "Exp")


def _typed(name: str, array: Any) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


@makes("If")
def branches(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=["float32"])
    other = pool.like(x)
    condition = np.array(pool.flip())
    result = np.add(x.array, other.array if isinstance(other, Value) else other)

    def branch(which: str) -> Any:
        name = pool.one_of("Add", "Sub", "Mul", "Max")
        nodes = [
            helper.make_node(pool.one_of(*_UNARY), ["i1"], [f"{which}a"]),
            helper.make_node(name, [f"{which}a", "i2"], [f"{which}b"]),
        ]
        return helper.make_graph(nodes, which, [], [_typed(f"{which}b", result)])

    made = helper.make_node("If", ["i0"], ["o0"], then_branch=branch("then"), else_branch=branch("else"))
    return Proposal([made], [pool.one_of(condition, Value("", condition)), x, other])


@makes("Loop")
def loop(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=["float32"], rank=(1, 2, 3))
    trips = pool.integer(0 if pool.wild else 1, 4)
    step = pool.constant([x.array.shape[-1]], np.float32, tame=True)
    early = pool.flip(0.3)
    nodes = [
        helper.make_node("Mul", ["carried", "i2"], ["scaled"]),
        helper.make_node(pool.one_of("Tanh", "Neg", "Relu"), ["scaled"], ["next"]),
        helper.make_node("Identity", ["next"], ["row"]),
    ]
    if early:  # stops before its last trip
        limit = numpy_helper.from_array(np.array(pool.integer(0, 3)), "limit")
        nodes += [helper.make_node("Constant", [], ["limit"], value=limit)]
        nodes += [helper.make_node("Less", ["trip", "limit"], ["go"])]
    else:
        nodes += [helper.make_node("Identity", ["on"], ["go"])]
    inputs = [
        helper.make_tensor_value_info("trip", TensorProto.INT64, []),
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        _typed("carried", x.array),
    ]
    outputs = [
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        *(_typed(n, x.array) for n in ("next", "row")),
    ]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    made = helper.make_node("Loop", ["i0", "", "i1"], ["o0", "o1"], body=body)
    count = np.array(trips)
    return Proposal([made], [count if pool.flip(0.9) else Value("", count), x, step], outputs=2, last=early)


@makes("Scan")
def scan(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=["float32"], rank=(2, 3))
    axis = pool.integer(0, x.array.ndim - 1)
    row = np.take(x.array, 0, axis)
    start = pool.fresh(row.shape, np.float32)
    nodes = [
        helper.make_node(pool.one_of("Add", "Mul", "Max"), ["state", "row"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next"]),
        helper.make_node("Abs", ["next"], ["out"]),
    ]
    outputs = [_typed("next", row), _typed("out", row)]
    body = helper.make_graph(nodes, "body", [_typed("state", row), _typed("row", row)], outputs)
    attributes: dict[str, Any] = {"num_scan_inputs": 1, "scan_input_axes": [axis]}
    attributes |= {"scan_input_directions": [pool.integer(0, 1)], "scan_output_directions": [pool.integer(0, 1)]}
    attributes["scan_output_axes"] = [pool.integer(0, row.ndim)]
    made = helper.make_node("Scan", ["i0", "i1"], ["o0", "o1"], body=body, **attributes)
    return Proposal([made], [start, x], outputs=2)


@makes("sequences")
def sequences(pool: Pool, operator: str) -> Proposal:
    """A sequence made, changed, asked for its length and put together or taken apart again."""
    x = pool.pick(types=("float32", "int64"), rank=(1, 2, 3))
    other = pool.fresh(x.array.shape, x.array.dtype)
    nodes: list[NodeProto] = []
    if pool.flip(0.4):
        axis = pool.axis(x)
        attributes: dict[str, Any] = {"axis": axis, "keepdims": pool.integer(0, 1)}
        nodes.append(helper.make_node("SplitToSequence", ["i0"], ["s"], **attributes))
        other = pool.fresh(np.take(x.array, 0, axis).shape, x.array.dtype)
        if attributes["keepdims"]:
            other = Value("", np.expand_dims(other.array, axis))
    elif pool.flip():
        nodes.append(helper.make_node("SequenceConstruct", ["i0", "i1"], ["s"]))
    else:
        kind = helper.np_dtype_to_tensor_dtype(x.array.dtype)
        nodes.append(helper.make_node("SequenceEmpty", [], ["empty"], dtype=kind))
        nodes.append(helper.make_node("SequenceInsert", ["empty", "i0"], ["s"]))
    last = "s"
    for number in range(pool.integer(0, 2)):
        change = pool.one_of("SequenceInsert", "SequenceInsert at", "SequenceErase")
        reads = {"SequenceInsert": [last, "i1"], "SequenceInsert at": [last, "i1", "i2"], "SequenceErase": [last]}[
            change
        ]
        nodes.append(helper.make_node(change.removesuffix(" at"), reads, [f"s{number}"]))
        last = f"s{number}"
    end = pool.one_of("SequenceAt", "ConcatFromSequence", "SequenceLength", "SequenceMap")
    if end == "SequenceAt":
        nodes.append(helper.make_node(end, [last, "i2"], ["o0"]))
    elif end == "SequenceLength":
        nodes.append(helper.make_node(end, [last], ["o0"]))
    else:
        if end == "SequenceMap":
            body = helper.make_graph(
                [helper.make_node("Neg", ["one"], ["minus"])],
                "body",
                [_typed("one", other.array)],
                [_typed("minus", other.array)],
            )
            nodes.append(helper.make_node(end, [last], ["mapped"], body=body))
            last = "mapped"
        new = pool.integer(0, 1) if other.array.ndim else 1
        axis = pool.integer(0, 0 if new else other.array.ndim - 1)
        nodes.append(helper.make_node("ConcatFromSequence", [last], ["o0"], axis=axis, new_axis=new))
    at = np.array(pool.one_of(0, 0, -1))
    return Proposal(nodes, [x, other, at], moves=True)


@makes("optionals")
def optionals(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("float32", "int64"))
    nodes = [helper.make_node("Optional", ["i0"], ["some"])]
    end = pool.one_of("OptionalGetElement", "OptionalHasElement")
    nodes.append(helper.make_node(end, ["some"], ["o0"]))
    return Proposal(nodes, [x], moves=True)
