"""Which bucket a sample goes to, how it is padded, and what is said of one that fits none."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime import manifests
from tvmpipe.consistency import inconsistency
from tvmpipe.errors import SampleError
from tvmpipe.manifest import BucketEntry, Manifest, OpenEntry
from tvmpipe.runtime.head.sample import Fitting, Sample, holds
from tvmpipe.tensors import TensorSpec

PADDED = manifests.in_buckets(manifests.chain("a"), (8, 4, 2), {"x": -1.0})
EXACT = manifests.in_buckets(manifests.chain("a"), (8, 4, 2), {})
FOUR_EXACT = manifests.in_buckets(manifests.chain("a"), (8, 4, 2), {"x": 0.0}, exact=[1])


def rows(count: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(3 * count, dtype=np.float32).reshape(count, 3)}


def test_manifests_of_buckets_are_consistent() -> None:
    for made in (PADDED, EXACT, FOUR_EXACT):
        assert inconsistency(made.model_copy(update={"files": (manifests.FILE,)})) is None


def test_a_sample_of_a_buckets_extents_is_given_to_it_as_it_is() -> None:
    for number, count in enumerate((8, 4, 2)):
        sample = rows(count)
        fitted = Fitting(EXACT).fit(sample)
        assert (fitted.bucket, dict(fitted.extents)) == (number, {})
        assert np.shares_memory(fitted.inputs["x"], sample["x"])


def test_a_smaller_sample_is_padded_at_its_end_and_its_results_are_cut_back() -> None:
    fitting = Fitting(PADDED)
    fitted = fitting.fit(rows(3))
    assert fitted.bucket == 1
    np.testing.assert_array_equal(fitted.inputs["x"], [*rows(3)["x"], [-1, -1, -1]])
    result = fitting.result(fitted, {"y": fitted.inputs["x"] * 2})
    np.testing.assert_array_equal(result["y"], rows(3)["x"] * 2)
    assert result["y"].flags["C_CONTIGUOUS"]


def test_a_bucket_that_takes_its_own_extents_only_is_passed_over() -> None:
    fitting = Fitting(FOUR_EXACT)
    assert [fitting.fit(rows(count)).bucket for count in (1, 2, 3, 4, 5)] == [2, 2, 0, 1, 0]


def test_what_fits_no_bucket_is_told_which_there_are() -> None:
    with pytest.raises(SampleError) as raised:
        Fitting(PADDED).fit(rows(9))
    assert str(raised.value) == (
        "no bucket takes a sample of rows=9; the buckets are rows=2, rows=4, rows=8; samples may be smaller along rows"
    )
    with pytest.raises(SampleError, match="samples have to be as large as one of them"):
        Fitting(EXACT).fit(rows(3))
    with pytest.raises(SampleError, match="no bucket takes a sample of rows=0"):
        Fitting(PADDED).fit(rows(0))
    with pytest.raises(SampleError, match=r"has shape \[4, 2\]; the model takes \[rows, 3\]"):
        Fitting(PADDED).fit({"x": np.zeros((4, 2), np.float32)})


def two_dimensions(extents: list[tuple[int, int]], exact: list[set[str]]) -> Manifest:
    """`a` [n, s] and `b` [s], both padded with 0, in buckets of these extents (the first is the largest)."""

    def bucket(n: int, s: int, exactly: set[str]) -> BucketEntry:
        inputs = (
            TensorSpec(name="a", shape=(n, s), dtype="float32"),
            TensorSpec(name="b", shape=(s,), dtype="int64"),
        )
        return BucketEntry(
            extents={"n": n, "s": s},
            inputs=inputs,
            outputs=(),
            model_inputs={},
            model_outputs={},
            exact=dict.fromkeys(exactly, ""),
        )

    first, *others = [bucket(n, s, exactly) for (n, s), exactly in zip(extents, exact, strict=True)]
    made = manifests.chain("a")
    return made.model_copy(
        update={
            "model": made.model.model_copy(update={"inputs": first.inputs, "outputs": ()}),
            "open": OpenEntry(
                axes={"a": ("n", "s"), "b": ("s",)},
                pads={"a": 0.0, "b": 0.0},
                extents=first.extents,
                exact=first.exact,
                others=tuple(others),
            ),
        }
    )


@given(
    ns=st.sets(st.integers(1, 5), min_size=1, max_size=3),
    ss=st.sets(st.integers(1, 5), min_size=1, max_size=3),
    data=st.data(),
)
def test_the_bucket_is_the_cheapest_of_those_that_can_hold_the_sample(
    ns: set[int], ss: set[int], data: st.DataObject
) -> None:
    extents = list(itertools.product(sorted(ns, reverse=True), sorted(ss, reverse=True)))
    exact = [data.draw(st.sets(st.sampled_from("ns"))) for _ in extents]
    n, s = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    fitting = Fitting(two_dimensions(extents, exact))
    sample: Sample = {"a": np.ones((n, s), np.float32), "b": np.ones(s, np.int64)}

    def costs(bucket: tuple[int, int], exactly: set[str]) -> float:
        """Bytes of inputs; nothing where the sample is as the bucket is, infinity where it cannot go there."""
        pairs = [("n", n, bucket[0]), ("s", s, bucket[1])]
        if all(mine == its for _, mine, its in pairs):
            return 0.0
        if any(mine > its or (mine < its and name in exactly) for name, mine, its in pairs):
            return math.inf
        return 4.0 * bucket[0] * bucket[1] + 8.0 * bucket[1]

    able = [costs(bucket, exactly) for bucket, exactly in zip(extents, exact, strict=True)]
    if min(able) == math.inf:
        with pytest.raises(SampleError, match="no bucket takes"):
            fitting.fit(sample)
        return
    fitted = fitting.fit(sample)
    assert able[fitted.bucket] == min(able)
    assert fitted.inputs["a"].shape == extents[fitted.bucket]
    assert fitted.inputs["a"].sum() == n * s
    assert fitted.inputs["b"].sum() == s


def test_inputs_must_agree_on_an_extent() -> None:
    fitting = Fitting(two_dimensions([(2, 4), (2, 2)], [set(), set()]))
    with pytest.raises(SampleError, match="input 'b' has 3 of 's' where another input has 4; they have to be the same"):
        fitting.fit({"a": np.ones((2, 4), np.float32), "b": np.ones(3, np.int64)})


def test_nothing_is_held_beyond_a_buckets_extents() -> None:
    first = PADDED.buckets[0]
    assert [holds(first, {"rows": count}) for count in (0, 1, 8, 9)] == [False, True, True, False]
