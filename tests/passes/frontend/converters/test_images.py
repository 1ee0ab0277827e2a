"""Resize, pools, transposed convolutions and regions: every attribute, compared with ONNX."""

from __future__ import annotations

import itertools

import numpy as np

from tests.passes.compiled import normal
from tests.passes.frontend.cases import Case, check_cases

Array = np.ndarray


def floats(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


def int64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def test_resize_in_every_mode() -> None:
    x, line = normal(1, 1, 2, 5, 4), normal(2, 1, 1, 7)
    cases = []
    modes = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric")
    for place, mode in enumerate(modes):
        name = ("linear", "cubic", "nearest")[place % 3]
        options = {"coordinate_transformation_mode": mode, "mode": name}
        cases.append(Case("Resize", [x, None, floats(1, 1, 1.7, 0.6)], options, [2], reference=True))
        options = {"coordinate_transformation_mode": mode, "mode": ("nearest", "linear", "cubic")[place % 3]}
        cases.append(Case("Resize", [line, None, None, int64(1, 1, 10)], options, [3], reference=True))
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        options = {"nearest_mode": rounding, "coordinate_transformation_mode": "half_pixel"}
        cases.append(Case("Resize", [x, None, None, int64(1, 2, 8, 7)], options, [3], reference=True))
    cases += [
        Case("Resize", [x, None, floats(0.6, 2.0)], {"axes": [2, 3], "mode": mode, "antialias": 1}, [2], reference=True)
        for mode in ("linear", "cubic")
    ]
    region = floats(0.2, -0.25, 0.8, 1.2)
    cases += [
        Case(
            "Resize",
            [x, region, None, int64(3, 6)],
            {
                "axes": [2, 3],
                "coordinate_transformation_mode": "tf_crop_and_resize",
                "mode": "linear",
                "extrapolation_value": 9.0,
            },
            [1, 3],
        ),
        Case("Resize", [x, None, None, int64(9, 9)], {"axes": [3, 2], "keep_aspect_ratio_policy": "not_larger"}, [3]),
        Case("Resize", [x, None, floats(0.8, 0.8)], {"axes": [2, 3], "mode": "cubic", "exclude_outside": 1}, [2]),
        Case("Resize", [(x * 50).astype(np.int8), None, floats(2, 2)], {"axes": [2, 3]}, [2]),
    ]
    check_cases(cases)


def test_upsample_of_old_files() -> None:
    x = normal(3, 1, 1, 2, 3)
    check_cases([Case("Upsample", [x, floats(1, 1, 2, 3)], {"mode": mode}, [1]) for mode in ("nearest", "linear")], 9)


def test_pools_whose_last_windows_reach_past_the_padding() -> None:
    x, line, volume = normal(4, 1, 2, 6, 7), normal(5, 1, 1, 9), normal(6, 1, 1, 4, 5, 4)
    ragged: dict[str, object] = {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1], "ceil_mode": 1}
    dilated: dict[str, object] = {"kernel_shape": [2], "dilations": [3], "pads": [1, 1]}
    same: dict[str, object] = {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}
    cube: dict[str, object] = {"kernel_shape": [2, 3, 2], "strides": [2, 2, 2], "ceil_mode": 1}
    given = ((x, ragged), (line, dilated), (x, same), (volume, cube))
    cases = [Case(operator, [data], options) for operator in ("MaxPool", "LpPool") for data, options in given]
    cases += [
        Case(
            "AveragePool", [data], {**options, "count_include_pad": include}, reference=data is x and options is ragged
        )
        for include, (data, options) in itertools.product((0, 1), given)
    ]
    cases += [
        Case("MaxPool", [x], {**ragged, "storage_order": 1}, outputs=[True, True]),
        Case("MaxPool", [volume], cube, outputs=[True, True]),
        Case("MaxPool", [(line * 40).astype(np.int8)], dilated, outputs=[True, True]),
    ]
    check_cases(cases)


def test_transposed_convolutions() -> None:
    x, weight, bias = normal(7, 1, 4, 3, 4), normal(8, 4, 3, 3, 2), normal(9, 3)
    check_cases(
        [
            Case("ConvTranspose", [x, weight], {"strides": [3, 2], "output_shape": [10, 8]}),
            Case("ConvTranspose", [x, weight, bias], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
            Case("ConvTranspose", [x, weight], {"strides": [2, 3], "pads": [1, 0, 2, 1], "output_padding": [1, 2]}),
            Case("ConvTranspose", [x, weight], {"dilations": [2, 3], "strides": [2, 1], "pads": [2, 1, 0, 3]}),
            Case("ConvTranspose", [x, weight, np.tile(bias, 2)], {"group": 2, "strides": [2, 2]}),
            Case("ConvTranspose", [normal(10, 2, 4, 5), normal(11, 4, 1, 3)], {"group": 4, "strides": [2]}),
            Case("ConvTranspose", [normal(12, 1, 2, 2, 3, 2), normal(13, 2, 3, 2, 2, 2)], {"strides": [2, 1, 2]}),
        ]
    )


def test_regions() -> None:
    x = normal(14, 2, 3, 8, 9)
    regions, batch = floats(1, 2, 9, 11, 3, 3, 14, 5, 0, 0, 4, 16).reshape(3, 4), int64(0, 1, 1)
    size = {"output_height": 2, "output_width": 3, "spatial_scale": 0.5}
    check_cases(
        [
            Case(
                "RoiAlign", [x, regions, batch], {**size, "sampling_ratio": ratio, "mode": mode, **way}, reference=True
            )
            for (ratio, mode), way in zip(
                itertools.product((0, 2), ("avg", "max")),
                ({}, {}, {"coordinate_transformation_mode": "output_half_pixel"}, {}),
                strict=True,
            )
        ]
    )


def test_normalisation_in_training() -> None:
    x, scale, bias, mean, variance = normal(15, 2, 3, 4), *(np.abs(normal(place, 3)) for place in range(16, 20))
    options = {"training_mode": 1, "momentum": 0.8}
    check_cases([Case("BatchNormalization", [x, scale, bias, mean, variance], options, outputs=[True] * 3)])


def test_optimisers() -> None:
    x, gradient, kept = normal(20, 2), normal(21, 2), np.abs(normal(22, 2))
    domain, rate, step, first = "ai.onnx.preview.training", np.array(0.1, np.float32), np.array(2), np.array(0)
    inputs = [x, gradient, kept]
    norm = {"norm_coefficient": 0.01}
    moved = {"alpha": 0.9, "beta": 0.5, **norm}
    given = (
        ("Adagrad", [rate, step, *inputs], {"decay_factor": 0.1, **norm}),
        ("Momentum", [rate, first, *inputs], {"mode": "nesterov", **moved}),
        ("Momentum", [rate, step, *inputs], {"mode": "standard", **moved}),
        ("Adam", [rate, step, *inputs, kept], {"norm_coefficient_post": 0.1}),
    )
    check_cases(
        [
            Case(name, arrays, options, outputs=[True] * (len(arrays) - 3), domain=domain, reference=True)
            for name, arrays, options in given
        ]
    )
