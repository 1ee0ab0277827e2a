"""What random graphs found: NaN, infinities, extreme integers, short axes and rare types, each compared with ONNX."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tests.passes.compiled import model_of, normal
from tests.passes.frontend.cases import Array, Case, check_cases
from tvmpipe.passes import driver

NAN, INF = np.nan, np.inf
NUMBERS = np.array([NAN, INF, -INF, -0.0, 0.0, 1e-40, -1, 2, 0.5, -0.5, 1.5, 2.5, -3.5], np.float32)
OTHERS = np.array([0, 1, NAN, NAN, 1, -0.0, 0.0, 0, INF, 2, 3, 0.0, NAN], np.float32)
ROWS = np.array(
    [[1, NAN, 2], [NAN, 1, 2], [1, 2, NAN], [0.0, -0.0, -1], [-INF] * 3, [INF] * 3, [INF, 1, INF], [NAN] * 3],
    np.float32,
)


def axes(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def test_nan_passes_what_compares() -> None:
    """Elementwise as ONNX Runtime has it; along an axis as the reference implementation: NaN."""
    bounds = [np.array(number, np.float32) for number in (-1, 1)]
    check_cases(
        [
            Case("HardSigmoid", [NUMBERS]),
            Case("Sign", [NUMBERS]),
            Case("Clip", [NUMBERS, *bounds], constants=[1, 2]),
            Case("Clip", [NUMBERS, *bounds]),
            Case("Min", [NUMBERS, OTHERS]),
            Case("Max", [NUMBERS, OTHERS, OTHERS[::-1].copy()]),
            Case("Max", [NUMBERS, np.array([[0], [NAN]], np.float32)], constants=[1]),
            Case("Min", [np.array([[0], [2]], np.float32), NUMBERS], constants=[0]),
            *(
                Case(operator, [ROWS, axes(1)], {"keepdims": 0}, [1], reference=True)
                for operator in ("ReduceMax", "ReduceMin")
            ),
            *(
                Case(operator, [ROWS], {"axis": 1, "select_last_index": last}, reference=True)
                for operator in ("ArgMax", "ArgMin")
                for last in (0, 1)
            ),
            Case("Hardmax", [ROWS], {"axis": 1}, reference=True),
            Case("ReduceLogSumExp", [ROWS, axes(1)], {"keepdims": 0}, [1]),
            Case("ReduceLogSumExp", [100 * normal(1, 3, 4, 2), axes(-1, 0)], {}, [1]),
        ]
    )


def test_integers_and_booleans() -> None:
    extremes = np.array([-(2**31), 2**31 - 1, 0, 1, -1, 5], np.int32)
    truths = np.array([True, False, True])
    check_cases(
        [
            Case("Sign", [np.array([0, 5, 255], np.uint8)]),
            Case("Sign", [extremes]),
            Case("PRelu", [extremes // 4, np.array(3, np.int32)]),
            Case("PRelu", [np.array([0, 2**32 - 1], np.uint32), np.array([3], np.uint32)]),
            Case("Shrink", [np.array([5, -5, 1, 0, 2, -2], np.int32)], {"bias": 0.3, "lambd": 1.5}),
            Case("ReduceMean", [extremes // 8, axes(0)], {}, [1]),
            Case("ReduceMean", [np.array([[-3, 1, -5], [7, 8, 10]])], {"keepdims": 0}),
            Case("Equal", [truths, np.array([[True], [False]])]),
            Case("ArgMin", [np.array([[3, -128, -128], [127] * 3], np.int8)], {"axis": 1}),
            Case("GatherND", [normal(1, 2, 8), np.array([[-1, -2], [1, 0]], np.int32)], domain="com.microsoft"),
        ]
    )


def test_rare_precisions_sizes_and_short_axes() -> None:
    half = np.array([0.5, -0.25, NAN, 1], np.float16)
    image = normal(1, 1, 5, 3, 2)
    squares = np.stack([(image**2)[:, max(0, at - 1) : at + 3].sum(1) for at in range(5)], 1)
    normed = image / (1 + squares / 4) ** 0.75
    check_cases(
        [
            *(
                Case(name, [half.astype(dtype)])
                for name in ("Acos", "Atan", "Tan")
                for dtype in (np.float16, np.float64)
            ),
            *(
                Case("LRN", [image.astype(dtype)], {"size": 4, "alpha": 1.0}, expected=[normed.astype(dtype)])
                for dtype in (np.float32, np.float64)
            ),
            Case("Pad", [normal(1, 3, 1, 4), axes(0, 2, 1, 0, 3, 2)], {"mode": "reflect"}, [1]),
            Case("Pad", [normal(1, 3, 2, 4), axes(3, 2), None, axes(-2)], {"mode": "reflect"}, [1, 3]),
            Case("Slice", [normal(1, 2, 3), axes(-3), axes(-(2**31)), axes(-2), axes(-2)], {}, [1, 2, 3, 4]),
            Case("Slice", [normal(1, 2, 3), axes(9, -9), axes(-9, -9), axes(0, 1), axes(-1, -1)], {}, [1, 2, 3, 4]),
            Case("ConvTranspose", [normal(1, 1, 2, 2), normal(2, 2, 1, 2)], {"auto_pad": "SAME_UPPER", "strides": [3]}),
        ]
    )


def test_fewer_updates_than_there_are_places_beside_the_axis() -> None:
    data, updates = normal(1, 3, 4, 5), normal(2, 2, 3, 2)
    distinct = np.array([[[0, -1], [3, 0], [-3, 1]], [[-4, 2], [1, -2], [2, 3]]], np.int64)
    again = np.array([[[0, 0], [0, -4], [1, 0]], [[1, 1], [1, -1], [-1, 3]]], np.int32)
    check_cases(
        [
            Case("ScatterElements", [data, distinct, updates], {"axis": 1}),
            *(
                Case("ScatterElements", [data, again, updates], {"axis": 1, "reduction": reduction})
                for reduction in ("add", "mul", "max", "min")
            ),
        ]
    )


def test_slices_whose_bounds_are_attributes() -> None:
    """Before opset 10; without axes they are the first ones."""
    check_cases(
        [
            Case("Slice", [normal(3, 4, 2)], {"starts": [1, 0], "ends": [9, -1]}),
            Case("Slice", [normal(3, 4, 2)], {"starts": [-3], "ends": [-1], "axes": [1]}),
        ],
        opset=9,
    )


def test_bounds_that_nan_passes_are_fused_into_the_convolution_before_them() -> None:
    """Of one sample, too: its axis of one is no axis that is broadcast."""
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["a"]), helper.make_node("Clip", ["a", "low", "high"], ["y"])]
    weights = {"w": normal(1, 32, 16, 1, 1), "b": normal(2, 32), "low": np.array(0.0), "high": np.array(6.0)}
    graph = driver.front(model_of(nodes, {"x": [1, 16, 6, 6]}, weights)).graph
    assert ("conv2d", "add", "maximum", "minimum") in [primitive.operators for primitive in graph.primitives]
