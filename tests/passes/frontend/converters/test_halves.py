"""Models of float16 and bfloat16: computed in float32, on weights that stay halves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.passes.frontend.converters.test_quantised import Nodes, answers, in_onnxruntime, in_reference
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

KINDS = {"float16": (np.float16, TensorProto.FLOAT16), "bfloat16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16)}
CLUSTER = '[[device]]\nname = "d"\nthreads = 1\n'
LARGE = 1024  # numbers of a weight from which it stays a half


def network(element: str, dtype: Any) -> Nodes:
    """Every kernel on weights of a half type; with float32 as `dtype` the same numbers in that."""
    half = KINDS[element][0]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made = Nodes(22)

    def numbers(*shape: int, scale: float = 1.0) -> NDArray[Any]:
        return (made.random.standard_normal(shape) * scale).astype(half).astype(dtype)

    def weight(*shape: int) -> str:
        deep = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        return made.known(numbers(*shape, scale=deep**-0.5))

    def hidden(operator: str, *inputs: str, **attributes: Any) -> str:
        return made.take(operator, *inputs, show=False, **attributes)

    # A block of a transformer: a table, a norm, attention, products.
    ids = made.given(made.random.integers(0, 64, (1, 8)))
    rows = hidden("Add", hidden("Gather", made.known(numbers(64, 32)), ids), weight(1, 8, 32))
    normed = hidden("LayerNormalization", rows, made.known(numbers(32)), made.known(numbers(32)))
    apart = made.known(np.array([1, 8, 2, 16]))
    query, key, value = (
        hidden("Transpose", hidden("Reshape", hidden("MatMul", normed, weight(32, 32)), apart), perm=perm)
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scores = hidden("Mul", hidden("MatMul", query, key), made.known(np.array(0.25).astype(dtype)))
    mask = made.known(np.where(np.arange(8) < 6, 0, -65504).astype(half).astype(dtype))
    shares = hidden("Cast", hidden("Softmax", hidden("Cast", hidden("Add", scores, mask), to=1)), to=kind)
    joined = hidden("Transpose", hidden("MatMul", shares, value), perm=[0, 2, 1, 3])
    joined = hidden("Reshape", joined, made.known(np.array([1, 8, 32])))
    made.take("Relu", hidden("Add", hidden("MatMul", joined, weight(32, 64)), weight(64)))
    made.take("MatMul", hidden("Reshape", rows, made.known(np.array([4, 2, 32]))), weight(4, 32, 16))
    # Convolutions.
    at = hidden("Conv", made.given(numbers(1, 3, 16, 16)), weight(32, 3, 5, 5), strides=[2, 2], pads=[2, 2, 2, 2])
    at = hidden("Mul", hidden("Conv", hidden("Relu", at), weight(32, 32, 3, 3), pads=[1] * 4), weight(1, 32, 1, 1))
    at = hidden("Conv", at, weight(32, 1, 7, 7), group=32, pads=[3] * 4)
    at = hidden("Conv", at, weight(32, 16, 3, 3), group=2, pads=[1] * 4)
    at = hidden("Conv", at, weight(48, 32, 1, 1))
    made.take("ConvTranspose", at, weight(48, 16, 2, 2), strides=[2, 2])
    # A recurrence.
    steps = hidden("Transpose", rows, perm=[1, 0, 2])
    made.take("LSTM", steps, weight(1, 64, 32), weight(1, 64, 16), weight(1, 128), hidden_size=16)
    return made


def run(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> tuple[driver.Compiled, dict[str, NDArray[Any]]]:
    """A model without any node for ONNX Runtime, compiled, and what it answers."""
    fused = driver.front(model, ImportOptions(fallback=False))
    made = driver.compile(driver.plan(fused, parse_cluster(CLUSTER)))
    with run_in_process(made.bundle) as pipe:
        return made, dict(pipe.run(dict(feed)))


@pytest.mark.parametrize("element", KINDS)
def test_every_kernel_on_half_weights(element: str) -> None:
    half, _ = KINDS[element]
    made, wide = network(element, half), network(element, np.float32)
    compiled, have = run(made.model(), made.feed)
    want = in_onnxruntime(wide.model(), {name: array.astype(np.float32) if array.dtype == half else array
                                         for name, array in made.feed.items()})  # fmt: skip
    if element == "float16":
        assert {array.dtype.name for array in have.values()} == {"float16"}
    for (name, array), found in zip(want.items(), have.values(), strict=True):
        assert found.dtype == half, name
        far = np.abs(found.astype(np.float32) - array).max() / np.abs(array).max()
        assert far < {"float16": 5e-4, "bfloat16": 4e-3}[element], f"{name}: {far}"  # results are rounded once

    sizes = [array.size for array in made.weights.values() if array.dtype == half]
    large, small = sum(size for size in sizes if size >= LARGE), sum(size for size in sizes if size < LARGE)
    graph = compiled.graph
    assert 2 * large < graph.all_weight_bytes < 2 * large + 4 * small + 1000  # and integers, and lanes that are filled
    (stage,) = compiled.bundle.manifest.plans[0].stages
    assert stage.weight_bytes == graph.all_weight_bytes
    stored = sum(file.size_bytes for file in compiled.bundle.manifest.files if file.path.startswith("weights/"))
    assert stored < graph.all_weight_bytes + 8000
    kernels = {(work.kernel, work.weight_itemsize) for work in compiled.costs.works if work.kernel}
    halves = {(name, 2) for name in ("matmul", "conv2d", "depthwise", "recurrent")}
    # One product packs its right-hand side itself, as it does activations.
    assert kernels == halves | {("matmul", 4), ("attention", 4), ("rows", 4)}
    inside = [name for primitive in graph.primitives for name in primitive.operators]
    assert "rounded" not in inside or element == "bfloat16"  # no cast of this model can make a number infinite
    assert inside.count("cast") == (1 + len(have) if element == "float16" else 0)


def test_float16_is_rounded_where_that_is_seen() -> None:
    """Conversions to integers and comparisons are those of halves; onnx's reference rounds after each node."""
    made = Nodes(22)
    random = made.random
    a = made.given(random.normal(0, 3000, (4, 64)).astype(np.float16))
    b = made.given(random.normal(0, 3000, (4, 64)).astype(np.float16))
    total = made.take("Add", a, b, show=False)
    whole = made.take("Cast", total, to=TensorProto.INT32)
    back = made.take("Cast", whole, to=TensorProto.FLOAT16, show=False)
    made.take("Equal", back, total)
    made.take("Floor", made.take("Mul", total, made.known(np.float16(0.37)), show=False))
    made.take("ArgMax", made.take("Relu", total, show=False), axis=-1)
    made.take("Less", total, made.known(np.float16(2047)))
    wide = made.take("Cast", made.take("Add", total, a, show=False), to=TensorProto.FLOAT, show=False)
    made.take("Cast", wide, to=TensorProto.INT64)
    made.take("Sign", made.take("Sub", total, b, show=False))
    made.take("Max", total, a)
    made.take("Clip", total, made.known(np.float16(-65504)), made.known(np.float16(1000)))
    model = made.model()
    have = answers(model, made.feed)
    for name, array in in_reference(model, made.feed).items():
        assert have[name].dtype == array.dtype, name
        np.testing.assert_array_equal(have[name], array, err_msg=name)


def test_a_cast_to_float16_makes_infinite_what_is_too_large() -> None:
    made = Nodes(22)
    x = made.given(np.array([1.0, 2049.0, 65519.0, 65520.0, -1e6, np.inf, np.nan, 1e-8], np.float32))
    half = made.take("Cast", x, to=TensorProto.FLOAT16)
    made.take("Cast", half, to=TensorProto.FLOAT)
    made.take("IsInf", half)
    made.take("CastLike", x, made.known(np.float16(0)))
    count = made.given(np.array([5001, 70000]))
    made.take("Cast", made.take("Cast", count, to=TensorProto.FLOAT16, show=False), to=TensorProto.INT64)
    model = made.model()
    have = answers(model, {**made.feed, count: np.array([5001, 60001])})
    want = in_onnxruntime(model, {**made.feed, count: np.array([5001, 60001])})
    for name, array in want.items():
        np.testing.assert_array_equal(have[name], array, err_msg=name)


def test_casts_between_halves_and_floats_cost_nothing() -> None:
    """What a converter to float16 leaves in float32, between casts: only the input is rounded, which may be large."""
    made = Nodes(17)
    weight = made.known((made.random.standard_normal((64, 64)) / 8).astype(np.float16))
    x = made.given(made.random.standard_normal((4, 64)).astype(np.float32))

    def half(name: str) -> str:
        return made.take("Cast", name, to=TensorProto.FLOAT16, show=False)

    def wide(name: str) -> str:
        return made.take("Cast", name, to=TensorProto.FLOAT, show=False)

    at = made.take("MatMul", half(x), weight, show=False)
    at = half(made.take("Max", wide(at), made.known(np.float32(-1.5)), show=False))
    at = half(made.take("Softmax", wide(made.take("MatMul", at, weight, show=False)), show=False))
    made.take("Cast", made.take("MatMul", at, weight, show=False), to=TensorProto.FLOAT)
    model = made.model()
    compiled, have = run(model, made.feed)
    inside = [name for primitive in compiled.graph.primitives for name in primitive.operators]
    assert (inside.count("rounded"), inside.count("cast")) == (1, 0)
    for name, array in in_onnxruntime(model, made.feed).items():
        assert np.abs(have[name] - array).max() <= 2e-3 * np.abs(array).max()


def test_what_onnxruntime_runs_reads_and_writes_halves() -> None:
    """What is kept depends on numbers: sums here are exact in halves."""
    made = Nodes(18)
    x = made.given(made.random.integers(-3, 4, (4, 32)).astype(np.float16))
    weight = made.known((made.random.integers(-2, 3, (32, 64)) / 4).astype(np.float16))
    product = made.take("MatMul", x, weight, show=False)
    above = made.take("Greater", product, made.known(np.float16(0)), show=False)
    made.take("Sqrt", made.take("Unique", made.take("Compress", product, above, show=False), show=False))
    made.take("Identity", x)
    model = made.model()
    have, want = answers(model, made.feed), in_onnxruntime(model, made.feed)
    for name, array in want.items():
        assert have[name].dtype == np.float16
        np.testing.assert_array_equal(have[name], array, err_msg=name)


def test_branches_loops_and_open_dimensions_of_halves() -> None:
    """Control flow becomes nodes; every bucket reads the same weights."""
    info, make = helper.make_tensor_value_info, helper.make_node
    half = TensorProto.FLOAT16
    random = np.random.default_rng(3)
    weight = (random.standard_normal((32, 32)) / 6).astype(np.float16)
    branches: dict[str, Any] = {
        f"{name}_branch": helper.make_graph([make(operator, ["t", "x"], [name])], name, [], [info(name, half, None)])
        for name, operator in (("then", "Add"), ("else", "Mul"))
    }
    body = helper.make_graph(
        [make("MatMul", ["at", "w"], ["p"]), make("Tanh", ["p"], ["next"]), make("Identity", ["goes"], ["on"])],
        "body",
        [info("trip", TensorProto.INT64, []), info("goes", TensorProto.BOOL, []), info("at", half, None)],
        [info("on", TensorProto.BOOL, []), info("next", half, None)],
    )
    nodes = [
        make("Loop", ["trips", "", "x"], ["t"], body=body),
        make("ReduceSum", ["t"], ["sum"], keepdims=0),
        make("Greater", ["sum", "zero"], ["above"]),
        make("If", ["above"], ["y"], **branches),
    ]
    known = {"w": weight, "trips": np.array(3), "zero": np.float16(0)}
    graph = helper.make_graph(
        nodes,
        "flow",
        [info("x", half, ["n", 32])],
        [info("y", half, ["n", 32])],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in known.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    fused = driver.front(model, ImportOptions(buckets={"n": (2, 5)}, fallback=False))
    made = driver.compile(driver.plan(fused, parse_cluster(CLUSTER)))
    first, other = (stage.weight_bytes for stage in made.bundle.manifest.plans[0].stages)
    assert first == other == made.graph.all_weight_bytes == weight.nbytes
    stored = [file.size_bytes for file in made.bundle.manifest.files if file.path.startswith("weights/")]
    assert sum(stored) < weight.nbytes + 1000
    with run_in_process(made.bundle) as pipe:
        for length in (2, 5):
            x = random.standard_normal((length, 32)).astype(np.float16)
            found = dict(pipe.run({"x": x}))["y"].astype(np.float32)
            (want,) = in_onnxruntime(model, {"x": x}).values()
            assert np.abs(found - want.astype(np.float32)).max() <= 2e-3 * np.abs(want.astype(np.float32)).max()
