"""Whether a rewritten model computes what the given one does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.passes.frontend.folded import floats, model, node
from tvmpipe.passes.frontend.agreement import Original
from tvmpipe.tensors import TensorSpec

X = TensorSpec(name="x", shape=(3, 4), dtype="float32")


def masked(hidden: float, factor: float = 1) -> onnx.ModelProto:
    """`factor * x`, and `hidden` where it is negative."""
    nodes = [
        node("Mul", ["x", "factor"], ["m"]),
        node("Greater", ["m", "zero"], ["g"]),
        node("Where", ["g", "m", "hidden"], ["y"]),
    ]
    weights = {"factor": factor, "zero": 0, "hidden": hidden}
    arrays = {name: np.array(number, np.float32) for name, number in weights.items()}
    return model(nodes, {"x": floats(3, 4)}, ["y"], arrays)


@pytest.mark.parametrize(("hidden", "other"), [(-np.inf, np.finfo(np.float32).min), (np.finfo(np.float32).max, np.inf)])
def test_the_largest_numbers_are_infinite(hidden: float, other: float) -> None:
    """ONNX Runtime's attention masks with the lowest float, the standard with infinity; others differ as ever."""
    original = Original(masked(hidden), [X])
    assert original.difference(masked(other)) is None
    assert original.difference(masked(hidden, 1.01)) is not None
    assert original.difference(masked(-1.0)) is not None
