"""Products, row norms and attention equal ONNX Runtime's on shapes that fill no block, tile or vector."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from tests.passes.compiled import BATCHES, SIZES, check, few, model_of, normal, runnable


@few(3)
@given(SIZES, SIZES, SIZES, st.lists(BATCHES, max_size=2), st.booleans())
def test_matmul_by_a_weight(m: int, k: int, n: int, batch: list[int], biased: bool) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p" if biased else "y"])]
    if biased:
        nodes.append(helper.make_node("Add", ["p", "b"], ["y"]))
    model = model_of(nodes, {"x": [*batch, m, k]}, {"w": normal(1, k, n), "b": normal(2, n)})
    operators = check(model)
    assert "matmul" in operators
    # The weight is packed when the model is compiled; columns that only fill a panel go again.
    assert ("take_columns" in operators) == (n % 16 != 0)


@few(3)
@given(SIZES, SIZES, SIZES, BATCHES, st.sampled_from(("both", "left", "right", "rank", "none")))
def test_matmul_of_two_inputs(m: int, k: int, n: int, batch: int, batched: str) -> None:
    left = {"both": [batch, 3], "left": [batch, 3], "right": [1, 3], "rank": [3], "none": []}[batched]
    right = {"both": [batch, 3], "left": [batch, 1], "right": [batch, 3], "rank": [batch, 3], "none": []}[batched]
    nodes = [helper.make_node("MatMul", ["a", "b"], ["p"]), helper.make_node("Relu", ["p"], ["y"])]
    assert "matmul" in check(model_of(nodes, {"a": [*left, m, k], "b": [*right, k, n]}))


@few(3)
@given(SIZES, SIZES, SIZES, BATCHES)
def test_matmul_by_batched_weights(m: int, k: int, n: int, batch: int) -> None:
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [batch, m, k]}, {"w": normal(1, batch, k, n)}
    )
    assert "matmul" in check(model)


@few(3)
@given(SIZES, SIZES, SIZES, st.booleans(), st.booleans(), st.sampled_from((None, "row", "scalar", "whole")))
def test_gemm(m: int, k: int, n: int, flip_a: bool, flip_b: bool, bias: str | None) -> None:
    weights = {"w": normal(1, n, k) if flip_b else normal(1, k, n)}
    shape = {"row": (n,), "scalar": (1,), "whole": (m, n)}
    if bias is not None:
        weights["b"] = normal(2, *shape[bias])
    node = helper.make_node("Gemm", ["x", *weights], ["y"], transA=int(flip_a), transB=int(flip_b), alpha=0.5, beta=1.5)
    assert "matmul" in check(model_of([node], {"x": [k, m] if flip_a else [m, k]}, weights))


@few(3)
@given(st.lists(st.integers(1, 5), max_size=2), st.integers(1, 8), SIZES)
def test_softmax(outer: list[int], rows: int, n: int) -> None:
    model = model_of([helper.make_node("Softmax", ["x"], ["y"], axis=-1)], {"x": [*outer, rows, n]})
    sample = {"x": normal(1, *outer, rows, n, scale=8.0)}
    assert check(model, sample) == ("softmax",)


@few(3)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=2), st.integers(1, 8), SIZES)
def test_layer_norm(outer: list[int], rows: int, n: int) -> None:
    node = helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["y"], axis=-1, epsilon=1e-3)
    model = model_of([node], {"x": [*outer, rows, n]}, {"scale": normal(1, n), "shift": normal(2, n)})
    # A mean far from zero costs a one-pass variance its digits.
    sample = {"x": normal(3, *outer, rows, n) + np.float32(30.0)}
    assert check(model, sample) == ("layer_norm",)


def attention_model(
    batch: list[int], m: int, n: int, depth: int, width: int, *, scale: str | None, mask: list[int] | None
) -> onnx.ModelProto:
    """Attention as exporters write it, mask and all operands run-time inputs."""
    nodes, logits = [helper.make_node("MatMul", ["q", "k"], ["s0"])], "s0"
    if scale is not None:
        nodes.append(helper.make_node(scale, [logits, "number"], ["s1"]))
        logits = "s1"
    inputs = {"q": [*batch, m, depth], "k": [*batch, depth, n], "v": [*batch, n, width]}
    if mask is not None:
        nodes.append(helper.make_node("Add", [logits, "mask"], ["s2"]))
        logits, inputs["mask"] = "s2", mask
    nodes.append(helper.make_node("Softmax", [logits], ["p"], axis=-1))
    nodes.append(helper.make_node("MatMul", ["p", "v"], ["y"]))
    number = math.sqrt(depth) if scale == "Div" else 1 / math.sqrt(depth)
    return model_of(nodes, inputs, {"number": np.array(number)})


@few(3)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=2),
    SIZES,
    SIZES,
    st.sampled_from((1, 5, 16, 24, 64)),
    st.sampled_from((16, 32, 48, 64)),
    st.sampled_from((None, "Mul", "Div")),
    st.sampled_from((None, "whole", "row", "column", "keys", "scalar")),
)
def test_attention(
    batch: list[int], m: int, n: int, depth: int, width: int, scale: str | None, mask: str | None
) -> None:
    shapes = {
        None: None,
        "whole": [*batch, m, n],
        "row": [batch[0], *([1] * (len(batch) - 1)), 1, n],
        "column": [m, 1],
        "keys": [n],
        "scalar": [1],
    }
    model = attention_model(batch, m, n, depth, width, scale=scale, mask=shapes[mask])
    assert check(model) == ("attention",)


@pytest.mark.parametrize("n", [16, 23])
def test_masked_places_get_no_weight(n: int) -> None:
    """A causal mask of -inf, and a last row that may see nothing: NaN, as ONNX Runtime says."""
    model = attention_model([1, 2], n, n, 16, 16, scale="Mul", mask=[n, n])
    mask = np.where(np.tri(n, dtype=bool), 0.0, -np.inf).astype(np.float32)
    mask[-1] = -np.inf
    tensors: dict[str, NDArray[np.float32]] = {name: normal(i, 1, 2, n, 16) for i, name in enumerate("qv")}
    assert check(model, {**tensors, "k": normal(9, 1, 2, 16, n), "mask": mask}) == ("attention",)


def test_attention_of_a_width_that_fills_no_block() -> None:
    """No kernel for it, but right."""
    operators = check(attention_model([2], 9, 11, 8, 20, scale="Div", mask=[9, 11]))
    assert "attention" not in operators
    assert "softmax" in operators


def test_a_mask_before_the_scale_is_scaled() -> None:
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Add", ["s", "mask"], ["masked"]),
        helper.make_node("Mul", ["masked", "number"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    inputs = {"q": [2, 5, 16], "k": [2, 16, 7], "v": [2, 7, 16], "mask": [5, 7]}
    assert "softmax" in check(model_of(nodes, inputs, {"number": np.array(0.25)}))


@pytest.mark.parametrize("n", [16, 23])
def test_nan_spoils_its_row(n: int) -> None:
    model = model_of([helper.make_node("Softmax", ["x"], ["y"], axis=-1)], {"x": [40, n]})
    tensor = normal(1, 40, n)
    for row in range(n):
        tensor[row, row] = np.nan
    assert check(model, {"x": tensor}) == ("softmax",)


def test_nan_spoils_its_query() -> None:
    tensors = {"q": normal(1, 2, 21, 16), "k": normal(2, 2, 16, 19), "v": normal(3, 2, 19, 16)}
    tensors["q"][1, 3, 5] = np.nan
    assert check(attention_model([2], 21, 19, 16, 16, scale="Mul", mask=None), tensors) == ("attention",)


@pytest.mark.parametrize("batch", [[2], [3, 3]])
def test_batched_rows_by_a_weight_have_a_rule(batch: list[int]) -> None:
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [*batch, 47, 30]}, {"w": normal(1, 30, 48)})
    assert check(model) == ("matmul",)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("m", "k", "n"), [(33, 2304, 48), (61, 4096, 128), (40, 2048, 35)])
def test_a_long_product(m: int, k: int, n: int, threads: int) -> None:
    """Where rows go through a step of K at a time, what follows the product waits for the last step."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Relu", ["q"], ["y"]),
    ]
    target = "x86-64-v4" if runnable("x86-64-v4") else "native"
    model = model_of(nodes, {"x": [1, m, k]}, {"w": normal(1, k, n), "b": normal(2, n)})
    assert "matmul" in check(model, target=target, threads=threads)


@pytest.mark.parametrize("m", [128, 197])
def test_attention_has_a_rule(m: int) -> None:
    assert check(attention_model([2], m, m, 64, 64, scale="Div", mask=None)) == ("attention",)


@pytest.mark.parametrize("m", [1, 13, 16])
def test_attention_in_full_tiles_has_a_rule(m: int) -> None:
    assert check(attention_model([2], m, m, 64, 64, scale="Div", mask=None)) == ("attention",)
