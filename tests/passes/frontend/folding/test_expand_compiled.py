"""Control flow and sequences in one model, compiled: what it computes is what ONNX Runtime does."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

import tvmpipe
from tests.passes.frontend.folded import answers, floats, graph, model, node, value
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

DEVICE = '[[device]]\nname = "d"\nthreads = 1\n'


def test_control_flow_compiled() -> None:
    x, start = floats(2, 8), floats(2, 8, seed=1)
    then = graph(
        [node("Relu", ["x"], ["t0"]), node("Greater", ["x", "half"], ["t1"]), node("Div", ["i", "n"], ["t2"])],
        [],
        ["t0", "t1", "t2"],
    )
    other = graph(
        [node("Neg", ["x"], ["e0"]), node("Less", ["x", "half"], ["e1"]), node("Mul", ["i", "i"], ["e2"])],
        [],
        ["e0", "e1", "e2"],
    )
    body = graph(
        [
            node("Identity", ["k"], ["m"]),
            node("MatMul", ["a", "W"], ["b"]),
            node("Tanh", ["b"], ["c"]),
            node("Identity", ["c"], ["d"]),
        ],
        [value("trip", np.array(0)), value("k", np.array(True)), value("a", x)],
        ["m", "c", "d"],
    )
    step = graph(
        [node("Add", ["h", "xt"], ["h1"]), node("Sigmoid", ["h1"], ["s"])],
        [value("h", x[0]), value("xt", x[0])],
        ["h1", "s"],
    )
    searched = graph(
        [
            node("Add", ["v", "v"], ["w"]),
            node("ReduceSum", ["w"], ["q"], keepdims=0),
            node("Less", ["q", "goal"], ["r"]),
        ],
        [value("trip2", np.array(0)), value("k2", np.array(True)), value("v", x)],
        ["r", "w"],
    )
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["c0"]),
        node("If", ["c0"], ["chosen", "marks", "counts"], then_branch=then, else_branch=other),
        node("Loop", ["three", "", "chosen"], ["last", "all"], body=body),
        node("Abs", ["x"], ["size"]),
        node("Loop", ["three", "", "size"], ["doubled"], body=searched),
        node("Scan", ["h0", "x"], ["h9", "run"], body=step, num_scan_inputs=1, scan_output_directions=[1]),
        node("SplitToSequence", ["x", "three"], ["parts"], axis=1),
        node("SequenceAt", ["parts", "last_one"], ["rest"]),
    ]
    weights = {
        "zero": np.float32(0),
        "half": np.float32(0.5),
        "goal": np.float32(60),
        "three": np.array(3),
        "last_one": np.array(-1),
        "W": floats(8, 8, seed=2) / 2,
    }
    outputs = ["chosen", "marks", "counts", "last", "all", "doubled", "h9", "run", "rest"]
    feed = {"x": x, "h0": start[0], "i": np.array([7, -9]), "n": np.array([2, 4])}
    given = model(nodes, feed, outputs, weights)
    for result, kind in zip(given.graph.output, [1, 9, 7, 1, 1, 1, 1, 1, 1], strict=True):
        result.type.tensor_type.elem_type = kind
    assert TensorProto.BOOL == 9
    with run_in_process(tvmpipe.build(given, parse_cluster(DEVICE))) as pipe:
        for sign, divisors in ((1, [2, 4]), (-1, [0, 0])):  # the sum's sign says which branch counts
            sample = {**feed, "x": sign * np.sign(x.sum()) * x, "n": np.array(divisors)}
            found = pipe.run(sample)
            for name, want in zip(outputs, answers(given, sample), strict=True):
                assert found[name].dtype == want.dtype
                np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=1e-6)
