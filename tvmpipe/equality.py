"""When two results are equal, and when comparing them proves nothing.

Two right programs differ by what the model amplifies, so what may differ depends on the model and the input: the noise
floor is how far ONNX Runtime with all its optimisations is from ONNX Runtime with none. `tvmpipe.reference.results`
makes what is expected; here are the rules, in numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tvmpipe.tensors import CARRIERS

Verdict = Literal["equal", "different", "proves nothing"]
Results = Mapping[str, NDArray[Any]]

RELATIVE = 1e-4
"""Of the largest value of an output: what float32 results may differ by, whatever the noise floor."""

ABSOLUTE = 1e-6
"""On top of that: ONNX Runtime's sigmoid alone is off by 1.7e-7."""

FLOOR_MULTIPLE = 4.0
"""Noise floors that float32 results may differ by, where that is more."""

ROUNDING_MULTIPLE = 2.0
"""How often results may differ by what rounding elsewhere does: either program may do that."""

HALF_RELATIVE = 1e-2
"""Of the largest value, for models that compute in half precision."""

CREDIBLE = 0.05
"""Of the largest value: a reference and its float64 counterpart that are farther apart are two models."""


@dataclass(frozen=True)
class Expected:
    """What a model answers to one sample, and what is known of how exact and how telling that is.

    `outputs` by name; `floor` the noise floor of floating-point outputs; `other` what the model answers to other
    inputs; `half` whether it computes in half precision; `steps` how far apart the numbers of an output are that is
    dequantised at the end; `exact` makes the same outputs in float64, or None where that cannot be done; `rounding`
    makes, for models that round to integers while they run, how far outputs go when what is rounded lies a little
    elsewhere: another noise floor.
    """

    outputs: Results
    floor: Mapping[str, float] = field(default_factory=dict)
    other: Results | None = None
    half: bool = False
    steps: Mapping[str, float] = field(default_factory=dict)
    exact: Callable[[], Results | None] | None = None
    rounding: Callable[[], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Comparison:
    """How far results are from what is expected.

    `difference` is the largest of the `output` that uses most of what it is `allowed`, inf where kinds, shapes, NaN or
    infinities differ; `largest` that output's largest finite value, `floor` its noise floor. `sentence` says it all.
    """

    verdict: Verdict
    output: str
    difference: float
    largest: float
    floor: float
    allowed: float
    sentence: str

    @property
    def equal(self) -> bool:
        """Whether the results are right and the comparison shows it."""
        return self.verdict == "equal"

    @property
    def relative(self) -> float:
        """The difference over the largest value, or as it is where that is 0."""
        return self.difference / self.largest if self.largest else self.difference

    def facts(self) -> dict[str, Any]:
        """The same for JSON, which has no infinity: None."""
        numbers = {"difference": self.difference, "largest": self.largest, "floor": self.floor, "allowed": self.allowed}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return {"verdict": self.verdict, "output": self.output, **finite, "sentence": self.sentence}


def compare(actual: Results, expected: Expected, steps: int = 0) -> Comparison:
    """Compare results by name with what is expected of them.

    `steps` is how many quantisation steps apart integers, and floats that are dequantised integers, may be: one for
    quantised models where two roundings are allowed. All outputs that prove nothing prove nothing together; where one
    proves something and none differs, results are equal.
    """
    entries = [_compare_output(name, actual.get(name), expected, steps) for name in expected.outputs]
    if any(_doubtful(entry) for entry in entries) and expected.rounding is not None:
        moved, share = expected.rounding(), ROUNDING_MULTIPLE / FLOOR_MULTIPLE
        floors = {name: max(expected.floor.get(name, 0.0), share * moved.get(name, 0.0)) for name in expected.outputs}
        wider = replace(expected, floor=floors)
        entries = [_compare_output(name, actual.get(name), wider, steps) for name in expected.outputs]
    if any(entry.verdict == "different" for entry in entries) and expected.exact is not None:
        exact = expected.exact() if any(_doubtful(entry) for entry in entries) else None
        if exact is not None:
            entries = [_decided(entry, actual, expected, exact) for entry in entries]
    return _all_outputs(entries)


def worst(comparisons: Iterable[Comparison]) -> Comparison:
    """One for many samples: the most wrong of those that differ, else the least exact of those that prove something."""
    found = list(comparisons)
    for verdict in ("different", "equal", "proves nothing"):
        if some := [one for one in found if one.verdict == verdict]:
            return max(some, key=_used)
    raise ValueError("there is nothing to compare")


def largest_difference(have: NDArray[Any], want: NDArray[Any]) -> float:
    """The largest |have - want| of two arrays of one shape. Equal NaN and infinity are equal, any others inf apart."""
    if not want.size:
        return 0.0
    same = have == want
    if np.issubdtype(want.dtype, np.inexact):
        same |= np.isnan(have) & np.isnan(want)
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(have[~same].astype(np.float64) - want[~same].astype(np.float64))
    if np.isnan(apart).any():
        return math.inf
    if not np.issubdtype(want.dtype, np.inexact):
        return max(1.0, float(apart.max()))  # float64 cannot tell large integers apart that are not equal
    return float(apart.max())


def largest_value(array: NDArray[Any]) -> float:
    """The largest finite magnitude; 0 where there is none."""
    values = np.abs(array.astype(np.float64))
    return float(np.max(values, where=np.isfinite(values), initial=0.0))


def _compare_output(name: str, have: NDArray[Any] | None, expected: Expected, steps: int) -> Comparison:
    want, floor = expected.outputs[name], expected.floor.get(name, 0.0)
    if have is not None and have.dtype == want.dtype and want.dtype.name in CARRIERS:
        number, other = CARRIERS[want.dtype.name], (expected.other or {}).get(name)
        half = expected.half or want.dtype.name == "bfloat16"
        have, want = have.astype(number), want.astype(number)
        others = None if other is None else {name: other.astype(number)}
        expected = replace(expected, outputs={name: want}, half=half, other=others)
    largest = largest_value(want)
    allowed = _allowed(name, largest, expected, steps)

    def said(verdict: Verdict, difference: float, sentence: str) -> Comparison:
        return Comparison(verdict, name, difference, largest, floor, allowed, sentence)

    if have is None:
        return said("different", math.inf, f"output {name!r} is missing")
    if have.shape != want.shape or have.dtype != want.dtype:
        return said("different", math.inf, f"output {name!r} is {_kind(have)} instead of {_kind(want)}")
    difference = largest_difference(have, want)
    figures = f"largest difference {difference:.1e} of {largest:.3g} in output {name!r}, allowed {allowed:.1e}"
    if floor:
        figures += f", noise floor {floor:.1e}"
    if difference > allowed:
        return said("different", difference, f"results differ from the reference's: {figures}")
    if reason := _proves_nothing(name, want, difference, allowed, expected):
        return said("proves nothing", difference, f"output {name!r} {reason}")
    return said("equal", difference, f"results equal the reference's: {figures}")


def _allowed(name: str, largest: float, expected: Expected, steps: int) -> float:
    dtype = expected.outputs[name].dtype
    if dtype == np.bool_:
        return 0.0
    if np.issubdtype(dtype, np.integer):
        return float(steps)
    rounding = steps * expected.steps.get(name, 0.0)
    if expected.half or dtype == np.float16:
        return HALF_RELATIVE * largest + rounding
    return max(RELATIVE * largest + ABSOLUTE, FLOOR_MULTIPLE * expected.floor.get(name, 0.0)) + rounding


def _proves_nothing(name: str, want: NDArray[Any], difference: float, allowed: float, expected: Expected) -> str:
    """Why a wrong program could have passed as well; "" where none is known.

    One that ignores its inputs would be as far from the reference as the results of other inputs are: results within a
    quarter of that do follow the inputs, even where more would be allowed.
    """
    if not want.size:
        return "is empty"
    if not want.any():
        return "is zero everywhere"
    if want.size > 1 and largest_difference(want, np.broadcast_to(want.flat[0], want.shape)) == 0:
        return "is the same number everywhere"
    other = None if expected.other is None else expected.other.get(name)
    if (
        other is not None
        and other.shape == want.shape
        and largest_difference(other, want) <= min(allowed, 4 * difference)
    ):
        return "hardly depends on the inputs"
    return ""


def _doubtful(entry: Comparison) -> bool:
    """Whether float64 may decide: not where results are simply wrong."""
    return entry.verdict == "different" and math.isfinite(entry.difference)


def _decided(entry: Comparison, actual: Results, expected: Expected, exact: Results) -> Comparison:
    """The entry, or that the results are right after all: nearer to float64 than the reference is."""
    name = entry.output
    if not _doubtful(entry) or exact[name].shape != expected.outputs[name].shape:
        return entry
    ours, theirs = (largest_difference(one[name], exact[name]) for one in (actual, expected.outputs))
    # An integer that rounding has tipped over is right if it is float64's.
    floating = np.issubdtype(expected.outputs[name].dtype, np.floating)
    nearer = ours <= theirs <= CREDIBLE * entry.largest if floating else ours == 0
    if not nearer:
        return entry
    sentence = (
        f"results differ by {entry.difference:.1e} of {entry.largest:.3g} in output {name!r}, but are nearer to "
        f"float64's ({ours:.1e}) than the reference is ({theirs:.1e})"
    )
    reason = _proves_nothing(name, expected.outputs[name], entry.difference, entry.difference, expected)
    verdict: Verdict = "proves nothing" if reason else "equal"
    sentence = f"output {name!r} {reason}" if reason else sentence
    return Comparison(verdict, name, entry.difference, entry.largest, entry.floor, entry.difference, sentence)


def _all_outputs(entries: list[Comparison]) -> Comparison:
    found = worst(entries)
    mute = [entry.sentence for entry in entries if entry.verdict == "proves nothing"]
    if found.verdict == "proves nothing":
        sentence = f"the comparison proves nothing: {'; '.join(mute)}"
    elif found.verdict == "equal" and mute:
        sentence = f"{found.sentence}; {'; '.join(mute)}, which proves nothing"
    else:
        sentence = found.sentence
    numbers = (found.difference, found.largest, found.floor, found.allowed)
    return Comparison(found.verdict, found.output, *numbers, sentence)


def _used(entry: Comparison) -> float:
    """The difference as a share of what is allowed."""
    if not entry.difference:
        return 0.0
    return entry.difference / entry.allowed if entry.allowed else math.inf


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}]"
