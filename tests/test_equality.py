"""The rules of what equal means, against the same rules written out element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tvmpipe.equality import Comparison, Expected, compare, largest_difference, worst

Array = NDArray[Any]

SPECIAL = st.sampled_from([0.0, -0.0, 1.0, -2.5, math.nan, math.inf, -math.inf, 1e-30, 3e38])
FLOATS = st.one_of(SPECIAL, st.floats(width=32, allow_nan=True))


def by_hand(have: float, want: float) -> float:
    """|have - want| of two numbers."""
    if have == want or (math.isnan(have) and math.isnan(want)):
        return 0.0
    apart = abs(have - want)
    return math.inf if math.isnan(apart) else apart


@settings(deadline=None, max_examples=200)
@given(data=st.data(), shape=hnp.array_shapes(max_dims=2, max_side=4))
def test_the_largest_difference_is_that_of_the_worst_element(data: st.DataObject, shape: tuple[int, ...]) -> None:
    have, want = (data.draw(hnp.arrays(np.float32, shape, elements=FLOATS)) for _ in range(2))
    pairs = zip(have.ravel().tolist(), want.ravel().tolist(), strict=True)
    assert largest_difference(have, want) == max(by_hand(a, b) for a, b in pairs)
    assert largest_difference(want, want) == 0.0


def test_large_integers_are_told_apart() -> None:
    large = np.array([2**62], np.int64)
    assert largest_difference(large + 1, large) >= 1
    assert largest_difference(np.array([-128], np.int8), np.array([127], np.int8)) == 255


@settings(deadline=None)
@given(
    scale=st.floats(1e-6, 1e6),
    floor=st.floats(0, 1e-2),
    times=st.floats(0.01, 3).filter(lambda x: abs(x - 1) > 1e-3),
)
def test_float32_may_differ_by_the_larger_of_two_bounds(scale: float, floor: float, times: float) -> None:
    want = np.array([0.0, scale, -scale / 2])
    bound = max(1e-4 * scale + 1e-6, 4 * floor)
    found = compare({"y": want + np.array([bound * times, 0, 0])}, Expected({"y": want}, {"y": floor}))
    assert found.verdict == ("equal" if times < 1 else "different")
    assert (found.output, found.floor) == ("y", floor)
    assert found.allowed == pytest.approx(bound)
    assert found.difference == pytest.approx(bound * times)
    assert found.largest == scale


def one(have: Any, want: Any, dtype: str = "float32", **more: Any) -> Comparison:
    steps = more.pop("steps_apart", 0)
    return compare({"y": np.array(have, dtype)}, Expected({"y": np.array(want, dtype)}, **more), steps)


def test_half_precision_may_differ_by_a_hundredth() -> None:
    assert one([1.009, 2], [1, 2], half=True).equal
    assert one([1.03, 2], [1, 2], half=True).verdict == "different"
    assert one([1.009, 2], [1, 2], "float16").equal
    assert one([1.009, 2], [1, 2]).verdict == "different"


def test_integers_and_booleans_are_equal_or_one_step_apart_where_asked() -> None:
    assert one([3, 4], [3, 4], "int8").equal
    assert one([3, 5], [3, 4], "int8").verdict == "different"
    assert one([3, 5], [3, 4], "int8", steps_apart=1).equal
    assert one([3, 6], [3, 4], "int8", steps_apart=1).verdict == "different"
    assert one([True, True], [True, False], "bool", steps_apart=1).verdict == "different"
    assert one([0.0, 0.31], [0.0, 0.3], steps={"y": 0.01}).verdict == "different"
    assert one([0.0, 0.31], [0.0, 0.3], steps={"y": 0.01}, steps_apart=1).equal


def test_equal_nan_and_infinity_are_equal() -> None:
    special = [math.nan, math.inf, -math.inf, 1.0]
    assert one(special, special).equal
    for wrong in ([0.0, *special[1:]], [special[0], math.nan, *special[2:]], [special[0], -math.inf, *special[2:]]):
        found = one(wrong, special)
        assert (found.verdict, found.difference) == ("different", math.inf)
    assert found.facts()["difference"] is None


@pytest.mark.parametrize(
    ("want", "dtype", "reason"),
    [
        ([0, 0], "float32", "zero everywhere"),
        ([0], "int64", "zero everywhere"),
        ([False, False], "bool", "zero everywhere"),
        ([7, 7, 7], "float32", "the same number everywhere"),
        ([math.nan] * 3, "float32", "the same number everywhere"),
        ([], "float32", "empty"),
    ],
)
def test_constants_prove_nothing(want: list[Any], dtype: str, reason: str) -> None:
    found = one(want, want, dtype)
    assert found.verdict == "proves nothing"
    assert not found.equal
    assert f"proves nothing: output 'y' is {reason}" in found.sentence
    assert one([1, 2], [0, 0]).verdict == "different"


def test_what_would_be_right_for_other_inputs_proves_nothing() -> None:
    want = np.array([1.0, 2.0], np.float32)
    near, far = want + np.float32(1e-5), want + np.float32(1)
    assert compare({"y": near}, Expected({"y": want}, other={"y": near})).verdict == "proves nothing"
    assert compare({"y": want}, Expected({"y": want}, other={"y": want})).verdict == "proves nothing"
    assert compare({"y": want}, Expected({"y": want}, other={"y": far})).equal
    # So does a noise floor that lets everything pass, unless results are far nearer than other inputs' are.
    between = want + np.float32(0.5)
    assert compare({"y": between}, Expected({"y": want}, {"y": 0.5}, other={"y": far})).verdict == "proves nothing"
    assert compare({"y": want}, Expected({"y": want}, {"y": 0.5}, other={"y": far})).equal


def test_several_outputs() -> None:
    """One that proves nothing is named; one that differs decides."""
    want = {"dull": np.zeros(3), "telling": np.arange(3.0)}
    found = compare(want, Expected(want))
    assert found.equal
    assert found.output == "telling"
    assert "output 'dull' is zero everywhere, which proves nothing" in found.sentence
    wrong = compare({**want, "telling": np.arange(3.0) + 1}, Expected(want))
    assert (wrong.verdict, wrong.output, wrong.difference) == ("different", "telling", 1.0)
    assert "output 'telling' is missing" in compare({"dull": want["dull"]}, Expected(want)).sentence
    short = {**want, "telling": np.arange(2.0)}
    assert "is float64[2] instead of float64[3]" in compare(short, Expected(want)).sentence
    assert compare({**want, "telling": np.arange(3)}, Expected(want)).verdict == "different"


def test_float64_decides_where_the_reference_is_the_worse_one() -> None:
    exact = np.array([1.0, 2.0])
    theirs = {"y": (exact + np.array([0.01, 0])).astype(np.float32)}

    def found(error: float, asked: list[int], truth: Array = exact) -> Comparison:
        def compute() -> dict[str, Array]:
            asked.append(1)
            return {"y": truth}

        ours = {"y": (exact + np.array([error, 0])).astype(np.float32)}
        return compare(ours, Expected(theirs, exact=compute))

    asked: list[int] = []
    nearer = found(0.003, asked)
    assert nearer.equal
    assert "nearer to float64's" in nearer.sentence
    assert found(-0.02, asked).verdict == "different"
    assert len(asked) == 2
    assert found(0.01, asked).equal
    assert len(asked) == 2  # no doubt, no float64
    # A float64 reference that is nowhere near computes something else, and decides nothing.
    assert found(0.003, asked, exact + 1).verdict == "different"
    assert compare({"y": exact[:1]}, Expected({"y": exact}, exact=lambda: 1 / 0)).verdict == "different"  # type: ignore[arg-type, return-value]


def test_an_integer_that_rounding_tips_over_is_right_if_it_is_float64s() -> None:
    want = {"label": np.array([3, 5])}
    ours = {"label": np.array([3, 4])}
    assert compare(ours, Expected(want, exact=lambda: ours)).equal
    assert compare(ours, Expected(want, exact=lambda: want)).verdict == "different"
    assert compare(ours, Expected(want, exact=lambda: None)).verdict == "different"


def test_the_worst_of_many() -> None:
    nothing, good, better = one([0], [0]), one([1.00005, 2], [1, 2]), one([1.00001, 2], [1, 2])
    wrong = one([1.1, 2], [1, 2])
    assert worst([nothing, good, better]) == good
    assert worst([nothing, wrong, good]) == wrong
    assert worst([nothing]) == nothing
    with pytest.raises(ValueError, match="nothing to compare"):
        worst([])
