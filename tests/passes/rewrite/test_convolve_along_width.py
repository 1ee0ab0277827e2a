"""Networks of signals and of images of one column compute what they did."""

from __future__ import annotations

from onnx import helper

from tests.passes.compiled import check, model_of, normal


def test_signals() -> None:
    """A 1-D network with everything between two convolutions that images of one row know, and something they do not."""
    weights = {
        "first": normal(1, 24, 3, 5),
        "gamma": normal(2, 24),
        "beta": normal(3, 24),
        "mean": normal(4, 24),
        "variance": abs(normal(5, 24)) + 0.5,
        "second": normal(6, 24, 1, 3),
        "scale": normal(7, 24, 1),
        "line": normal(8, 10),
        "squeeze": normal(9, 24, 24, 1),
        "third": normal(10, 16, 12, 3),
        "fourth": normal(11, 16, 5, 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], strides=[2], pads=[2, 1]),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "variance"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[3], strides=[2], pads=[1, 1]),
        helper.make_node("Conv", ["d", "second"], ["e"], group=24, pads=[2, 2], dilations=[2]),
        helper.make_node("Mul", ["e", "scale"], ["f"]),
        helper.make_node("Add", ["f", "line"], ["g"]),
        helper.make_node("AveragePool", ["g"], ["h"], kernel_shape=[2], pads=[1, 0], count_include_pad=1),
        helper.make_node("GlobalAveragePool", ["h"], ["i"]),
        helper.make_node("Conv", ["i", "squeeze"], ["j"]),
        helper.make_node("Sigmoid", ["j"], ["k"]),
        helper.make_node("Mul", ["h", "k"], ["l"]),
        helper.make_node("Concat", ["l", "d"], ["m"], axis=1),
        helper.make_node("Softmax", ["m"], ["n"], axis=1),
        helper.make_node("Conv", ["n", "third"], ["o"], group=4),
        helper.make_node("ConvTranspose", ["o", "fourth"], ["y"], strides=[3], pads=[2, 1], output_padding=[2]),
    ]
    model = model_of(nodes, {"x": [2, 3, 41]}, weights)
    operators = check(model)
    assert operators.count("conv2d") == 4
    assert "conv1d" not in operators


def test_an_image_of_one_column() -> None:
    weights = {"first": normal(1, 16, 4, 3, 3), "second": normal(2, 16, 1, 5, 1), "third": normal(3, 8, 16, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], group=16, pads=[2, 0, 2, 0]),
        helper.make_node("AveragePool", ["c"], ["d"], kernel_shape=[3, 1], pads=[1, 0, 1, 0]),
        helper.make_node("Add", ["d", "b"], ["e"]),
        helper.make_node("MaxPool", ["c"], ["g"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["e", "g"], ["f"]),
        helper.make_node("Conv", ["f", "third"], ["y"]),
    ]
    assert check(model_of(nodes, {"x": [1, 4, 21, 1]}, weights)).count("reshape") == 2
