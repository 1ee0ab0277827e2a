"""Sampling against references that say each formula word by word."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.errors import InputError, StageError
from tvmpipe.generation.filters import keep_min_p, keep_top_k, keep_top_p, powers, softmax
from tvmpipe.generation.options import GenerationOptions, SamplingOptions
from tvmpipe.generation.sample import distribution, log_probabilities, penalised, sample

# Few values, so that there are ties.
VALUES = st.sampled_from([-math.inf, -40.0, -2.0, -0.5, 0.0, 0.5, 1.0, 1.0, 3.0])
FLOATS = st.floats(-20, 20, width=32)


@st.composite
def logit_rows(draw: st.DrawFn) -> npt.NDArray[np.float32]:
    size = draw(st.integers(1, 24))
    row = draw(st.lists(draw(st.sampled_from([VALUES, FLOATS])), min_size=size, max_size=size))
    row[draw(st.integers(0, size - 1))] = draw(FLOATS)  # one at least is finite
    return np.array(row, np.float32)


def descending(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda one: (-values[one], one))


@given(logit_rows(), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_top_k(row: npt.NDArray[np.float32], k: int) -> None:
    values = row.astype(np.float64)
    assert list(keep_top_k(values, k)) == sorted(descending(list(values))[:k])


@given(logit_rows(), st.floats(0.01, 1))
@settings(max_examples=100, deadline=None)
def test_top_p(row: npt.NDArray[np.float32], p: float) -> None:
    probabilities = softmax(row.astype(np.float64))
    order = descending(list(probabilities))
    kept = set(keep_top_p(probabilities, p).tolist())
    assert kept == set(order[: len(kept)])  # the most probable
    assert math.fsum(probabilities[order[: len(kept)]]) >= p - 1e-9  # are enough
    assert math.fsum(probabilities[order[: len(kept) - 1]]) < p + 1e-9  # and none too many


@given(logit_rows(), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_min_p(row: npt.NDArray[np.float32], p: float) -> None:
    probabilities = softmax(row.astype(np.float64))
    largest = max(probabilities)
    assert list(keep_min_p(probabilities, p)) == [i for i, one in enumerate(probabilities) if one >= p * largest]


tokens = st.lists(st.integers(0, 23), max_size=12)


@given(
    logit_rows(),
    tokens,
    tokens,
    st.floats(0.5, 2),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.dictionaries(st.integers(0, 40), st.floats(-100, 100), max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_penalties(
    row: npt.NDArray[np.float32],
    prompt: list[int],
    generated: list[int],
    repetition: float,
    presence: float,
    frequency: float,
    bias: dict[int, float],
) -> None:
    prompt = [one for one in prompt if one < len(row)]
    generated = [one for one in generated if one < len(row)]
    options = SamplingOptions(
        repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency, logit_bias=bias
    )
    expected = []
    for token, logit in enumerate(row.astype(np.float64)):
        if token in prompt or token in generated:
            logit = logit / repetition if logit > 0 else logit * repetition
        count = Counter(generated)[token]
        expected.append(logit - count * frequency - (presence if count else 0) + bias.get(token, 0))
    np.testing.assert_allclose(penalised(row, prompt, generated, options), expected, rtol=1e-12, atol=1e-12)


@given(logit_rows(), st.floats(0.05, 3), st.integers(0, 24), st.floats(0.05, 1), st.floats(0, 0.9))
@settings(max_examples=100, deadline=None)
def test_distribution(row: npt.NDArray[np.float32], temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    """Step by step, on a dictionary."""
    row = row.round(3)  # so that probabilities are clearly different, or equal
    options = SamplingOptions(temperature, top_k, top_p, min_p)
    scores = row.astype(np.float64)
    left = {token: math.exp((float(one) - float(max(scores))) / temperature) for token, one in enumerate(scores)}

    def normalise() -> None:
        total = math.fsum(left.values())
        for token in left:
            left[token] /= total

    def order() -> list[int]:
        return sorted(left, key=lambda token: (-scores[token], token))

    left = {token: left[token] for token in order()[: top_k or None]}
    normalise()
    total, kept = 0.0, []
    for token in order():
        kept.append(token)
        total += left[token]
        if total >= top_p:
            break
    ambiguous = any(abs(math.fsum(left[token] for token in order()[:n]) - top_p) < 1e-5 for n in range(1, len(left)))
    left = {token: left[token] for token in kept}
    normalise()
    largest = max(left.values())
    ambiguous |= any(abs(one - min_p * largest) < 1e-5 for one in left.values())
    left = {token: one for token, one in left.items() if one >= min_p * largest}
    normalise()
    ids, probabilities = distribution(scores, options)
    assert probabilities.sum() == pytest.approx(1)
    if not ambiguous:  # sums in another order decide such a case differently
        assert set(ids.tolist()) == set(left)
        np.testing.assert_allclose(probabilities, [left[token] for token in ids.tolist()], rtol=1e-5, atol=1e-30)


@given(logit_rows())
@settings(max_examples=60, deadline=None)
def test_greedy_takes_the_first_of_the_largest(row: npt.NDArray[np.float32]) -> None:
    options = SamplingOptions(temperature=0, top_k=3, top_p=0.5)
    generator = np.random.default_rng(0)
    assert sample(row, [], [], options, generator) == descending(list(row))[0]
    assert generator.random() == np.random.default_rng(0).random()  # nothing was drawn


def test_draws_follow_the_distribution() -> None:
    row = np.array([0.3, -1, 2, 1, -math.inf, 1.5], np.float32)
    options = SamplingOptions(temperature=0.8, top_k=4, repetition_penalty=1.3, presence_penalty=0.2)
    generator = np.random.default_rng(3)
    draws = 3000
    counts = np.bincount([sample(row, [2], [3], options, generator) for _ in range(draws)], minlength=len(row))
    ids, probabilities = distribution(penalised(row, [2], [3], options), options)
    expected = np.zeros(len(row))
    expected[ids] = probabilities
    assert set(np.flatnonzero(counts)) == set(ids)
    # Five standard deviations of a binomial.
    assert np.all(np.abs(counts - draws * expected) <= 5 * np.sqrt(draws * expected * (1 - expected)) + 1e-9)


def test_a_seed_gives_the_same_tokens() -> None:
    row = np.random.default_rng(0).normal(size=100).astype(np.float32)
    options = SamplingOptions()
    runs = [
        [sample(row, [], [], options, generator) for _ in range(20)]
        for generator in map(np.random.default_rng, (5, 5, 6))
    ]
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) > 3


def test_a_tiny_temperature_is_greedy_and_a_huge_one_is_even() -> None:
    row = np.array([1, 3, 2, 3], np.float32)
    _, cold = distribution(row.astype(np.float64), SamplingOptions(temperature=5e-324))
    assert cold.tolist() == [0, 0.5, 0, 0.5]
    _, hot = distribution(row.astype(np.float64), SamplingOptions(temperature=1e300))
    assert hot == pytest.approx(0.25)


def test_log_probabilities() -> None:
    row = np.array([1000.0, 999, -math.inf], np.float32)
    expected = [-math.log(1 + math.exp(-1)), -1 - math.log(1 + math.exp(-1)), -math.inf]
    assert log_probabilities(row) == pytest.approx(expected)


def test_powers_are_exact_enough() -> None:
    exponents = np.linspace(-69, 0, 10_000)
    assert np.abs(powers(exponents) / np.exp(exponents) - 1).max() < 1e-5
    assert powers(np.array([-math.inf, -1000.0, 0.0])).tolist() == [0, 0, 1]


def test_top_p_of_a_whole_vocabulary() -> None:
    """More tokens than are sorted at once."""
    values = np.random.default_rng(0).normal(size=30_000)
    for sharpness in (0.1, 1, 10):
        probabilities = softmax(values * sharpness)
        order = np.argsort(-probabilities, kind="stable")
        for p in (0.3, 0.9, 0.999):
            count = int(np.argmax(np.cumsum(probabilities[order]) >= p)) + 1
            kept = keep_top_p(probabilities, p)
            assert abs(len(kept) - count) <= 1  # a sum may be rounded otherwise
            assert set(kept.tolist()) == set(order[: len(kept)].tolist())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers(value: float) -> None:
    with pytest.raises(StageError, match="the logits after token 3 of a sequence are not finite numbers"):
        sample(np.array([0, value], np.float32), [1, 1], [0], SamplingOptions(), np.random.default_rng())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": -1.0}, "temperature is -1.0, and must be a number from 0 on"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0, and must be a number over 0 and up to 1"),
        ({"min_p": 2.0}, "min_p is 2.0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"presence_penalty": math.inf}, "presence_penalty is inf"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias of token -1"),
        ({"logit_bias": {3: math.inf}}, "logit_bias of token 3 is inf"),
    ],
)
def test_values_out_of_range(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        SamplingOptions(**options)  # type: ignore[arg-type]


def test_drafts_are_greedy() -> None:
    with pytest.raises(InputError, match="drafts of 4 tokens need greedy sampling, and the temperature is 1"):
        GenerationOptions(draft=4)
