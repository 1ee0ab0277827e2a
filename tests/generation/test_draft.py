"""Guesses from the text so far."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.generation.draft import LONGEST_NGRAM, look_up


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(0, 6))
@settings(max_examples=120, deadline=None)
def test_guesses_followed_the_same_tokens(tokens: list[int], count: int) -> None:
    found = list(look_up(tokens, count))
    places = {
        size: [p for p in range(len(tokens) - size) if tokens[p : p + size] == tokens[-size:]]
        for size in range(LONGEST_NGRAM, 0, -1)
    }
    best = next(((size, where[-1]) for size, where in places.items() if where), None)
    if best is None or not count:
        assert found == []
    else:
        size, place = best
        assert found == tokens[place + size :][:count]


def test_the_longest_context_counts() -> None:
    assert look_up([1, 2, 3, 7, 9, 3, 8, 1, 2, 3], 2) == (7, 9)
    assert look_up([3, 8, 4, 3], 5) == (8, 4, 3)
    assert look_up([1, 2, 3], 5) == ()
