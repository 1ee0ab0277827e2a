"""Convolutions, poolings and what follows them equal ONNX Runtime's on sizes that fill no block, tile or vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from tests.passes.compiled import BATCHES, check, few, model_of, normal
from tvmpipe.passes.kernels.window import Window
from tvmpipe.passes.kernels.winograd.compute import choose_tile

Epilogue = Literal["none", "bias", "relu", "residual", "norm", "clip", "silu"]
EPILOGUES = st.sampled_from(("none", "bias", "relu", "residual", "norm", "clip", "silu"))
CHANNELS = st.one_of(st.integers(1, 40), st.sampled_from((1, 3, 16, 17, 32)))


@dataclass(frozen=True)
class Geometry:
    """Image and window of a convolution or pooling; `pads` top, left, bottom, right."""

    height: int
    width: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]

    @property
    def attributes(self) -> dict[str, Any]:
        return {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "pads": self.pads,
            "dilations": self.dilations,
        }

    @property
    def output(self) -> tuple[int, int]:
        return Window(self.kernel, self.strides, self.pads, self.dilations).output(self.height, self.width)


@st.composite
def geometries(draw: st.DrawFn, largest: int = 23, dilated: bool = True) -> Geometry:
    pair = st.tuples
    kernel = draw(pair(st.integers(1, 5), st.integers(1, 5)))
    dilations = draw(pair(st.integers(1, 2), st.integers(1, 2))) if dilated else (1, 1)
    pads = tuple(draw(st.integers(0, size - 1)) for size in (*kernel, *kernel))
    # As small as the window with its padding allows.
    least = [
        max(1, (size - 1) * step + 1 - pads[axis] - pads[axis + 2])
        for axis, (size, step) in enumerate(zip(kernel, dilations, strict=True))
    ]
    height, width = (draw(st.integers(low, largest)) for low in least)
    strides = draw(pair(st.integers(1, 2), st.integers(1, 2)))
    return Geometry(height, width, kernel, strides, pads, dilations)  # type: ignore[arg-type]


def convolution(
    epilogue: Epilogue, geometry: Geometry, batch: int, channels: int, outputs: int, groups: int = 1
) -> onnx.ModelProto:
    """A convolution with what networks put after one."""
    fan_in = channels // groups * geometry.kernel[0] * geometry.kernel[1]
    weights = {"w": normal(1, outputs, channels // groups, *geometry.kernel, scale=fan_in**-0.5)}
    inputs = {"x": [batch, channels, geometry.height, geometry.width]}
    operands = ["x", "w"]
    if epilogue in ("bias", "clip", "silu"):
        operands.append("b")
        weights["b"] = normal(2, outputs)
    last = "y" if epilogue in ("none", "bias") else "c"
    nodes = [helper.make_node("Conv", operands, [last], group=groups, **geometry.attributes)]
    if epilogue == "relu":
        nodes.append(helper.make_node("Relu", ["c"], ["y"]))
    elif epilogue == "residual":
        inputs["r"] = [batch, outputs, *geometry.output]
        nodes.append(helper.make_node("Add", ["r", "c"], ["sum"]))
        nodes.append(helper.make_node("Relu", ["sum"], ["y"]))
    elif epilogue == "norm":
        for place, name in enumerate(("gamma", "beta", "mean", "variance")):
            weights[name] = np.abs(normal(3 + place, outputs)) + np.float32(0.1)
        nodes.append(helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["n"]))
        nodes.append(helper.make_node("Relu", ["n"], ["y"]))
    elif epilogue == "clip":
        weights |= {"low": np.array(-0.5), "high": np.array(0.7)}
        nodes.append(helper.make_node("Clip", ["c", "low", "high"], ["y"]))
    elif epilogue == "silu":
        nodes.append(helper.make_node("Sigmoid", ["c"], ["s"]))
        nodes.append(helper.make_node("Mul", ["c", "s"], ["y"]))
    return model_of(nodes, inputs, weights)


@few(4)
@given(geometries(), st.integers(1, 3), CHANNELS, CHANNELS, EPILOGUES)
def test_conv2d(geometry: Geometry, batch: int, channels: int, outputs: int, epilogue: Epilogue) -> None:
    operators = check(convolution(epilogue, geometry, batch, channels, outputs))
    assert {"conv2d", "depthwise_conv2d", "winograd_conv2d"} & set(operators)
    # Blocks of channels, left once: where the result leaves the model.
    assert operators[-1] == "unpack_channels"
    assert operators.count("unpack_channels") == 1


@few(4)
@given(st.integers(1, 40), st.integers(1, 40), BATCHES, CHANNELS, CHANNELS, EPILOGUES)
def test_pointwise_conv2d(height: int, width: int, batch: int, channels: int, outputs: int, epilogue: Epilogue) -> None:
    geometry = Geometry(height, width, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
    operators = check(convolution(epilogue, geometry, batch, channels, outputs))
    assert "conv2d" in operators
    assert operators[-1] == "unpack_channels"


@few(4)
@given(geometries(), st.integers(1, 3), st.integers(2, 40), EPILOGUES)
def test_depthwise_conv2d(geometry: Geometry, batch: int, channels: int, epilogue: Epilogue) -> None:
    operators = check(convolution(epilogue, geometry, batch, channels, channels, channels))
    assert "depthwise_conv2d" in operators
    assert operators[-1] == "unpack_channels"


@few(4)
@given(geometries(), st.sampled_from((2, 3, 4)), st.integers(1, 5), st.integers(2, 5), EPILOGUES)
def test_grouped_conv2d(geometry: Geometry, groups: int, inside: int, outside: int, epilogue: Epilogue) -> None:
    operators = check(convolution(epilogue, geometry, 2, groups * inside, groups * outside, groups))
    assert "conv2d" in operators


@few(6)
@given(geometries(9, dilated=False), st.integers(1, 2), st.sampled_from((1, 1, 2, 4)), st.data())
def test_transposed_conv2d(geometry: Geometry, batch: int, groups: int, data: st.DataObject) -> None:
    """Of every phase a plain convolution, whatever the strides, and what is cut off or added at the edges."""
    inside, outside = (data.draw(st.sampled_from((1, 3, 8, 16, 24))) for _ in range(2))
    strides = tuple(data.draw(st.integers(1, 3)) for _ in range(2))
    extra = [data.draw(st.integers(0, stride - 1)) for stride in strides]
    weights = {"w": normal(1, groups * inside, outside, *geometry.kernel, scale=0.3), "b": normal(2, groups * outside)}
    attributes = {**geometry.attributes, "strides": strides, "output_padding": extra, "group": groups}
    extents = zip((geometry.height, geometry.width), strides, geometry.kernel, extra, (0, 1), strict=True)
    assume(
        all(
            (size - 1) * stride + kernel + more > geometry.pads[axis] + geometry.pads[axis + 2]
            for size, stride, kernel, more, axis in extents
        )
    )
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w", "b"], ["c"], **attributes),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    inputs = {"x": [batch, groups * inside, geometry.height, geometry.width]}
    operators = check(model_of(nodes, inputs, weights))
    assert operators.count("conv2d") + operators.count("winograd_conv2d") + operators.count("depthwise_conv2d") == 1


@pytest.mark.parametrize("m", [2, 4])
@few(4)
@given(
    st.tuples(*[st.integers(0, 2)] * 4),
    st.integers(0, 6),
    st.integers(0, 14),
    st.integers(1, 2),
    st.integers(16, 40),
    st.sampled_from((16, 17, 32, 35)),
    EPILOGUES,
)
def test_winograd_conv2d(
    m: int,
    pads: tuple[int, int, int, int],
    more_rows: int,
    more_columns: int,
    batch: int,
    channels: int,
    outputs: int,
    epilogue: Epilogue,
) -> None:
    least = {2: 12, 4: 24}[m]
    height, width = least + more_rows + 2 - pads[0] - pads[2], least + more_columns + 2 - pads[1] - pads[3]
    geometry = Geometry(height, width, (3, 3), (1, 1), pads, (1, 1))
    window = Window((3, 3), padding=pads)
    assume(choose_tile((outputs, channels, 3, 3), window, *geometry.output) == m)
    operators = check(convolution(epilogue, geometry, batch, channels, outputs))
    assert "winograd_conv2d" in operators
    assert operators[-1] == "unpack_channels"


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(
    ("size", "channels", "outputs", "batch"),
    [
        (55, 16, 64, 1),  # chunks of one row of tiles, which divide evenly on two threads
        (27, 32, 160, 1),  # blocks of each chunk for each of two threads
        (27, 17, 35, 1),  # neither
        (13, 35, 192, 2),
    ],
)
def test_winograd_conv2d_on_several_threads(size: int, channels: int, outputs: int, batch: int, threads: int) -> None:
    geometry = Geometry(size, size, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
    assert "winograd_conv2d" in check(convolution("residual", geometry, batch, channels, outputs), threads=threads)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "channels", "outputs"),
    [(64, 3, 2, 3, 35), (33, 5, 1, 16, 16), (28, 1, 1, 32, 48), (7, 1, 1, 64, 256), (31, 3, 1, 32, 32)],
)
def test_conv2d_on_several_threads(
    size: int, kernel: int, stride: int, channels: int, outputs: int, threads: int
) -> None:
    """Many pixels are shared out, or many channels; the last is depthwise."""
    pad = kernel // 2
    geometry = Geometry(size, size, (kernel, kernel), (stride, stride), (pad,) * 4, (1, 1))
    groups = channels if channels == outputs == 32 else 1
    operators = check(convolution("clip", geometry, 1, channels, outputs, groups), threads=threads)
    assert {"conv2d", "depthwise_conv2d"} & set(operators)


@few(4)
@given(
    geometries(largest=19),
    st.integers(1, 2),
    CHANNELS,
    st.sampled_from(("MaxPool", "AveragePool")),
    st.booleans(),
    st.booleans(),
)
def test_pooling(
    geometry: Geometry, batch: int, channels: int, operator: str, ceil_mode: bool, count_include_pad: bool
) -> None:
    attributes = {**geometry.attributes, "ceil_mode": int(ceil_mode)}
    if operator == "AveragePool":
        del attributes["dilations"]
        attributes["count_include_pad"] = int(count_include_pad)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node(operator, ["c"], ["y"], **attributes),
    ]
    model = model_of(nodes, {"x": [batch, 5, geometry.height, geometry.width]}, {"w": normal(1, channels, 5, 1, 1)})
    operators = check(model)
    # It reads the blocks that the convolution wrote.
    assert operators[-2:] == ({"MaxPool": "max_pool2d", "AveragePool": "avg_pool2d"}[operator], "unpack_channels")


@few(4)
@given(st.integers(1, 19), st.integers(1, 19), BATCHES, CHANNELS)
def test_global_average_pool(height: int, width: int, batch: int, channels: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    model = model_of(nodes, {"x": [batch, 5, height, width]}, {"w": normal(1, channels, 5, 1, 1)})
    assert check(model)[-2:] == ("global_avg_pool2d", "unpack_channels")


@few(4)
@given(st.lists(st.sampled_from((1, 7, 16, 17, 32, 48)), min_size=2, max_size=3), st.integers(1, 9))
def test_concat_of_channels(channels: list[int], size: int) -> None:
    nodes, weights, parts = [], {}, []
    for place, count in enumerate(channels):
        weights[f"w{place}"] = normal(place, count, 20, 1, 1)
        nodes.append(helper.make_node("Conv", ["x", f"w{place}"], [f"c{place}"]))
        parts.append(f"c{place}")
    nodes.append(helper.make_node("Concat", parts, ["y"], axis=1))
    operators = check(model_of(nodes, {"x": [2, 20, size, size + 1]}, weights))
    assert "concatenate" in operators or "concat" in operators
    # Blocks are joined as they are where none but the last has lanes without a channel.
    joined = not any(count % 16 for count in channels[:-1])
    assert operators.count("unpack_channels") == (1 if joined else len(channels))


OPERATORS = st.sampled_from(("Mul", "Add", "Sub", "Div", "norm"))


@few(4)
@given(
    st.lists(st.tuples(OPERATORS, st.booleans(), st.sampled_from(("scalar", "channel", "batch"))), max_size=4),
    st.booleans(),
    st.integers(2, 20),
    st.integers(0, 3),
)
def test_constant_maps_of_an_image_are_folded(
    steps: list[tuple[str, bool, str]], after_convolution: bool, channels: int, read_at: int
) -> None:
    """One multiply and one add at most, none but an add after a convolution; also where a step is read twice."""
    assume(steps)
    nodes, weights, at = [], {}, "x"
    if after_convolution:
        weights["w"] = normal(1, channels, 4, 1, 1)
        nodes.append(helper.make_node("Conv", ["x", "w"], ["c"]))
        at = "c"
    for place, (operator, swapped, kind) in enumerate(steps):
        shape = {"scalar": (), "channel": (channels, 1, 1), "batch": (1, channels, 1, 1)}[kind]
        if operator == "norm":
            for number, name in enumerate(("gamma", "beta", "mean", "variance")):
                weights[f"{name}{place}"] = np.abs(normal(3 + number, channels)) + np.float32(0.5)
            operands = [at, *(f"{name}{place}" for name in ("gamma", "beta", "mean", "variance"))]
            nodes.append(helper.make_node("BatchNormalization", operands, [f"s{place}"]))
        else:
            weights[f"k{place}"] = (np.abs(normal(place, *shape)) + 0.5).astype(np.float32).reshape(shape)
            # A constant divided by an image is no affine map.
            operands = [f"k{place}", at] if swapped and operator != "Div" else [at, f"k{place}"]
            nodes.append(helper.make_node(operator, operands, [f"s{place}"]))
        at = f"s{place}"
    shared = read_at < len(steps) - 1
    nodes.append(helper.make_node("Relu", [at], ["bent"]))
    nodes.append(helper.make_node("Add", ["bent", f"s{read_at}"] if shared else ["bent", "bent"], ["y"]))
    model = model_of(nodes, {"x": [2, 4 if after_convolution else channels, 5, 3]}, weights)
    operators = check(model)
    runs = 2 if shared else 1
    assert operators.count("multiply") <= runs - after_convolution
    assert operators.count("add") <= runs + 1  # the last node is one too
    assert not {"subtract", "divide", "batch_norm"} & set(operators)


def test_a_constant_that_is_no_affine_map_of_channels() -> None:
    """A constant for each pixel, one divided by the image, and zero as a divisor stay what they are."""
    weights: dict[str, NDArray[np.float32]] = {"pixels": normal(1, 5, 3), "one": np.ones((), np.float32)}
    nodes = [
        helper.make_node("Mul", ["x", "pixels"], ["a"]),
        helper.make_node("Mul", ["a", "a"], ["square"]),
        helper.make_node("Add", ["square", "one"], ["positive"]),
        helper.make_node("Div", ["one", "positive"], ["y"]),
    ]
    assert "divide" in check(model_of(nodes, {"x": [2, 4, 5, 3]}, weights))
