"""Operators of the standard that TVM lacks or computes wrongly: many nodes a model, compared with ONNX."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import TensorProto

from tests.passes.compiled import normal
from tests.passes.frontend.cases import Case, check_cases
from tvmpipe.errors import UnsupportedModelError

FLAGS = tuple(itertools.product((0, 1), repeat=2))


def int64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def scalar(number: int) -> np.ndarray:
    return np.array(number, np.int64)


def test_cumulative_sums_and_products() -> None:
    """Either end, with and without the element itself; the axis counts from the end, too."""
    x = normal(1, 3, 5)
    whole = np.arange(1, 7, dtype=np.int32)
    check_cases(
        [
            *(
                Case("CumSum", [x, scalar(axis)], {"exclusive": exclusive, "reverse": reverse}, [1])
                for axis, (exclusive, reverse) in zip((0, 1, -1, 1), FLAGS, strict=True)
            ),
            Case("CumSum", [whole, scalar(0)], {}, [1]),
        ]
    )
    check_cases(
        [
            *(
                Case("CumProd", [x, scalar(1)], {"exclusive": exclusive, "reverse": reverse}, [1])
                for exclusive, reverse in FLAGS
            ),
            Case("CumProd", [whole, scalar(0)], {"reverse": 1}, [1]),
        ],
        opset=26,
    )


def test_fourier_transforms() -> None:
    """Cropped, padded, of the middle axis, one-sided, back; and of frames of a signal."""
    real, pairs = normal(2, 2, 10, 1), normal(3, 2, 10, 3, 2)
    half = np.concatenate([normal(4, 1, 6, 1), np.zeros((1, 6, 1), np.float32)], axis=2)
    signal, window = normal(5, 1, 40, 1), np.hanning(8).astype(np.float32)
    check_cases(
        [
            Case("DFT", [real, None, scalar(1)], {"onesided": 1}, [2]),
            Case("DFT", [real, scalar(7), scalar(1)], {}, [1, 2]),
            Case("DFT", [pairs, scalar(16), scalar(1)], {}, [1, 2]),
            Case("DFT", [pairs, None, scalar(-2)], {"inverse": 1}, [2]),
            Case("DFT", [half, None, scalar(1)], {"onesided": 1, "inverse": 1}, [2], reference=True),
            Case("STFT", [signal, scalar(3), window], {}, [1]),
            Case("STFT", [signal, scalar(5), None, scalar(16)], {"onesided": 0}, [1, 3]),
        ]
    )


def test_images_of_blocks() -> None:
    columns = normal(6, 2, 8, 9)
    check_cases(
        [
            Case("Col2Im", [columns, int64(4, 4), int64(2, 2)], {}, [1, 2]),
            Case(
                "Col2Im",
                [normal(7, 1, 6, 4), int64(5, 6), int64(3, 2)],
                {"strides": [2, 3], "dilations": [1, 2], "pads": [1, 1, 0, 1]},
                [1, 2],
            ),
            Case("Col2Im", [normal(8, 1, 2, 4), int64(6), int64(2)], {"dilations": [2], "strides": [1]}, [1, 2]),
        ]
    )


def test_deformable_convolutions() -> None:
    x, weight, bias = normal(9, 2, 4, 6, 5), normal(10, 6, 2, 3, 3), normal(11, 6)
    offset, mask = normal(12, 2, 36, 3, 2), np.abs(normal(13, 2, 18, 3, 2))
    options = {"group": 2, "offset_group": 2, "strides": [2, 2], "pads": [1, 0, 1, 1], "dilations": [1, 1]}
    plain = normal(14, 2, 8, 5, 4)
    check_cases(
        [
            Case("DeformConv", [x, weight, offset, bias, mask], options),
            Case("DeformConv", [x, normal(15, 3, 4, 2, 2), plain], {"kernel_shape": [2, 2]}),
        ]
    )


def test_determinants_and_norms() -> None:
    singular = np.ones((3, 3), np.float32)
    first_zero = np.array([[0, 2, 1], [3, 0, 0], [1, 1, 4]], np.float32)
    x = normal(16, 3, 4)
    x[1] = 0
    check_cases(
        [
            Case("Det", [normal(17, 2, 3, 5, 5)]),
            Case("Det", [np.stack([singular, first_zero])]),
            *(Case("LpNormalization", [x], {"p": p, "axis": axis}) for p, axis in ((1, 1), (2, 1), (2, 0))),
        ]
    )


def test_a_cache_is_written_at_each_samples_own_place() -> None:
    cache, update = normal(18, 2, 3, 5, 4), normal(19, 2, 3, 2, 4)
    check_cases(
        [
            Case("TensorScatter", [cache, update, int64(1, 3)], {}),
            Case("TensorScatter", [cache, update, int64(4, 2)], {"mode": "circular"}),
            Case("TensorScatter", [cache, normal(20, 2, 2, 5, 4)], {"axis": 1}),
        ],
        opset=24,
    )


def test_remainders() -> None:
    """Of integers the sign of the divisor, with `fmod` that of the dividend; of floats past infinity."""
    x = np.array([-4, 7, 5, 4, -7, 8], np.int32)
    y = np.array([2, -3, 8, -2, 3, 5], np.int32)
    a = np.array([-4.3, 7.2, 5, 4.3, -7.2, 8, 1, -1, np.inf, np.nan], np.float32)
    b = np.array([2.1, -3.4, 8, -2.1, 3.4, 5, np.inf, np.inf, 2, 1], np.float32)
    check_cases(
        [
            Case("Mod", [x, y]),
            Case("Mod", [x, y], {"fmod": 1}),
            Case("Mod", [a, b], {"fmod": 1}),
            Case("Mod", [a.astype(np.float64), np.array([3.5])], {"fmod": 1}),
            Case("Mod", [a.astype(np.float16), b.astype(np.float16)], {"fmod": 1}),
            Case("Mod", [a[:-2], b[:-2]], expected=[np.mod(a[:-2], b[:-2])]),
        ],
        opset=28,
    )


def test_powers_of_other_types() -> None:
    whole, real = np.array([1, -2, 3], np.int32), np.array([1.5, 2, -2], np.float32)
    check_cases(
        [
            Case("Pow", [real, whole]),
            Case("Pow", [np.abs(whole), real]),
            Case("Pow", [whole, np.array([0, 3, 2], np.int64)]),
            Case("Elu", [np.array([-2, 0, 3, np.nan], np.float16)], {"alpha": 0.5}),
            Case("Selu", [np.array([-2, 0, 3, np.nan], np.float32)]),
        ]
    )


def test_parts_and_choices() -> None:
    x, table = normal(21, 2, 7), np.array([-1, 0, 2, 4, -6], np.int64)
    values = np.array([5, 2], np.float32)
    check_cases(
        [
            Case("Split", [x], {"axis": 1, "num_outputs": 3}, outputs=[True] * 3),
            Case("Split", [x, int64(1, 4, 2)], {"axis": -1}, [1], outputs=[True] * 3),
            Case("OneHot", [table, scalar(4), values], {"axis": 0}, [1]),
            Case("OneHot", [table.reshape(5, 1), scalar(4), values], {}, [1, 2]),
            Case("ReverseSequence", [normal(22, 4, 3, 2), int64(1, 4, 2)]),
            Case("ReverseSequence", [normal(23, 3, 4), int64(3, 1, 4)], {"batch_axis": 0, "time_axis": 1}),
        ]
    )


def test_unpooling_puts_elements_back() -> None:
    x, indices = normal(24, 1, 1, 2, 2), np.array([[[[5, 7], [13, 15]]]], np.int64)
    options = {"kernel_shape": [2, 2], "strides": [2, 2]}
    check_cases(
        [
            Case("MaxUnpool", [x, indices], options),
            Case("MaxUnpool", [x, indices, int64(1, 1, 5, 6)], options, [2], reference=True),
        ]
    )


def test_dropout_drops_nothing_and_says_so_in_its_mask() -> None:
    x = normal(25, 3, 4)
    off, zero = np.array(False), np.array(0, np.float32)
    check_cases([Case("Dropout", [x, None, off], {}, [2]), Case("Dropout", [x, zero, ~off], {}, [1, 2])])
    with pytest.raises(UnsupportedModelError, match="draws random numbers"):
        check_cases([Case("Dropout", [x, None, np.array(True)], {}, [2])])


def test_functions_of_one_number_in_every_precision() -> None:
    """Also near 0 and far from it, where one formula loses digits and another overflows."""
    x = np.array([-90, -3, -1e-3, 0, 2e-4, 0.5, 1.5, 88], np.float32)
    inside = np.array([-0.9, -1e-3, 0, 0.5], np.float32)
    given = [
        ("Sinh", x),
        ("Cosh", x),
        ("Asinh", x),
        ("Acosh", np.abs(x) + 1),
        ("Atanh", inside),
        ("ThresholdedRelu", x),
    ]
    check_cases([Case(name, [array]) for name, array in given])
    check_cases([Case(name, [array[1:-1].astype(np.float16)], reference=True) for name, array in given])
    small = np.array([1e-4, -3e-5], np.float32)
    check_cases([Case("Sinh", [small])])


def test_the_rest() -> None:
    check_cases([Case("EyeLike", [np.zeros((3, 4), np.int32)], {"dtype": TensorProto.FLOAT, "k": -1})])


def test_shifts_by_any_amount() -> None:
    """To either side, by less than 0 and by more than all bits, signed and not."""
    amounts = np.array([[0, 1, 7, 8, -1, -128, 127]], np.int8)
    signed = np.array([[-128], [-3], [5], [127]], np.int8)
    wide = np.array([[0], [1 << 63], [(1 << 64) - 1], [12345]], np.uint64)
    far = np.array([[0, 3, 63, 64, 1 << 63]], np.uint64)
    check_cases(
        [
            Case("BitShift", [x, y], {"direction": direction}, reference=True)
            for x, y in ((signed, amounts), (wide, far))
            for direction in ("LEFT", "RIGHT")
        ],
        opset=28,
    )


def test_top_k_of_any_integer() -> None:
    """Those that ONNX Runtime does not sort, too: far apart, equal ones, either end."""
    kinds = (np.int16, np.uint16, np.uint32, np.uint64)
    rows = [np.array([[0, np.iinfo(kind).max, 7, np.iinfo(kind).min, 7]], kind) for kind in kinds]
    check_cases(
        [
            Case("TopK", [x, int64(4)], {"largest": largest}, [1], (True, True), reference=True)
            for x in rows
            for largest in (0, 1)
        ]
    )
