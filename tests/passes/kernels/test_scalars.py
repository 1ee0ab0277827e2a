"""Numbers without axes, alone and among tensors."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tests.passes.compiled import check, model_of


def test_a_number_gets_axes_in_a_loop() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "ones"], ["square"]),
        helper.make_node("Sigmoid", ["square"], ["y"]),
    ]
    check(model_of(nodes, {"x": []}, {"ones": np.array([1, 1])}), {"x": np.array(0.3, np.float32)})
