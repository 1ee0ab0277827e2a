"""Elements in steps: as fast as any way to divide them, and no step where there is no room."""

from __future__ import annotations

import functools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmpipe.chunks import Chunk, Chunks

CHUNKS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 20), st.booleans()),
    min_size=1,
    max_size=4,
    unique_by=lambda one: one[0],
)


def fastest(each: tuple[Chunk, ...], count: int, room: int) -> float:
    """Seconds of the best order of steps, by trying all."""

    @functools.cache
    def rest(left: int, room: int) -> float:
        if not left:
            return 0.0
        ways = [math.inf]
        for chunk in each:
            if chunk.elements <= room and (chunk.elements <= left or chunk.padded):
                taken = min(chunk.elements, left)
                ways.append(chunk.seconds + rest(left - taken, room - taken))
        return min(ways)

    return rest(count, room)


@given(CHUNKS, st.integers(1, 24), st.integers(0, 9))
def test_steps_are_as_fast_as_the_best_and_fit(chunks: list[tuple[int, int, bool]], count: int, spare: int) -> None:
    each = tuple(sorted((Chunk(*one) for one in chunks), key=lambda one: one.elements))
    room = count + spare
    best = fastest(each, count, room)
    if math.isinf(best):
        with pytest.raises(ValueError, match="no steps of"):
            Chunks(each).split(count, room)
        return
    steps = Chunks(each).split(count, room)
    assert sum(steps) == count
    seconds, done = 0.0, 0
    for step in steps:
        fitting = [one for one in each if one.elements == step]
        if done + step == count:  # the last one may be padded
            fitting += [one for one in each if one.elements > step and one.padded and done + one.elements <= room]
        seconds += min(one.seconds for one in fitting)
        done += step
    assert seconds == pytest.approx(best)


def test_more_elements_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(ValueError, match="5 elements do not fit where there is room for 4"):
        Chunks((Chunk(1, 1.0, False),)).split(5, 4)
