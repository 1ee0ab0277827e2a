"""Results of a stream: when they come, and what a source that fails leaves of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from tests.waiting import PATIENCE_S
from tvmpipe.errors import SampleError
from tvmpipe.runtime.head.sample import Result, Sample
from tvmpipe.runtime.head.streams import stream, stream_async


def sample(value: int) -> dict[str, Any]:
    return {"x": np.array(value)}


def at_once(given: Sample) -> Future[Result]:
    """A pipeline that takes no time; 13 is no sample."""
    future: Future[Result] = Future()
    if given["x"] == 13:
        raise SampleError("13 is no sample")
    future.set_result({"y": given["x"] + 1})
    return future


def values(results: Iterator[Result]) -> list[int]:
    return [int(result["y"]) for result in results]


@pytest.mark.parametrize("most", [1, 3, 100])
@pytest.mark.parametrize("lazy", [False, True])
def test_results_come_in_order(most: int, lazy: bool) -> None:
    samples = [sample(value) for value in range(10)]
    assert values(stream(at_once, iter(samples) if lazy else samples, most)) == list(range(1, 11))
    assert values(stream(at_once, [], most)) == []


def test_a_result_does_not_wait_for_the_next_sample() -> None:
    """A source that is silent until the result of what it gave last has been seen."""
    seen = threading.Event()

    def live() -> Iterator[Sample]:
        for value in range(3):
            seen.clear()
            yield sample(value)
            assert seen.wait(PATIENCE_S), "the result was held back"

    got = []
    for result in stream(at_once, live(), 4):
        got.append(int(result["y"]))
        seen.set()
    assert got == [1, 2, 3]


def test_what_a_source_raises_comes_after_what_was_computed() -> None:
    def failing() -> Iterator[Sample]:
        yield sample(1)
        yield sample(2)
        raise OSError("the camera is gone")

    got = []
    with pytest.raises(OSError, match="the camera is gone"):
        for result in stream(at_once, failing(), 4):
            got.append(int(result["y"]))
    assert got == [2, 3]


def test_what_is_no_sample_is_an_error_in_its_place() -> None:
    got = []
    with pytest.raises(SampleError, match="13 is no sample"):
        for result in stream(at_once, [sample(12), sample(13), sample(14)], 4):
            got.append(int(result["y"]))
    assert got == [13]


def test_no_more_is_taken_from_a_source_than_may_be_under_way() -> None:
    taken = []

    def counted() -> Iterator[Sample]:
        for value in range(100, 200):
            taken.append(value)
            yield sample(value)

    results = stream(at_once, counted(), 3)
    for done in range(20):
        next(results)
        assert len(taken) <= done + 1 + 3
    results.close()  # type: ignore[attr-defined]
    before = len(taken)
    assert before <= 24


def test_in_an_event_loop_too() -> None:
    async def submit(given: Sample) -> asyncio.Future[Result]:
        return asyncio.wrap_future(at_once(given))

    async def work() -> None:
        seen = asyncio.Event()

        async def live() -> AsyncIterator[Sample]:
            for value in range(3):
                seen.clear()
                yield sample(value)
                await asyncio.wait_for(seen.wait(), PATIENCE_S)
            raise OSError("the camera is gone")

        got = []
        with pytest.raises(OSError, match="the camera is gone"):
            async for result in stream_async(submit, live(), 4):
                got.append(int(result["y"]))
                seen.set()
        assert got == [1, 2, 3]
        for source in ([sample(1), sample(2)], iter([sample(1), sample(2)])):
            assert [int(result["y"]) async for result in stream_async(submit, source, 1)] == [2, 3]

    asyncio.run(work())


def test_a_source_in_a_thread_does_not_stop_the_event_loop() -> None:
    async def submit(given: Sample) -> asyncio.Future[Result]:
        return asyncio.wrap_future(at_once(given))

    async def work() -> list[int]:
        ticked = threading.Event()

        def live() -> Iterator[Sample]:
            yield sample(1)
            assert ticked.wait(PATIENCE_S), "the event loop stands still"
            yield sample(2)

        asyncio.get_running_loop().call_later(0.05, ticked.set)
        return [int(result["y"]) async for result in stream_async(submit, live(), 4)]

    assert asyncio.run(work()) == [2, 3]
