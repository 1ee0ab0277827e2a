"""Results of a stream of samples, in their order, each as soon as it is there.

Samples are taken from their source beside the results, so that neither waits for the other: a live source may be
silent while results come, and what it raises does not undo what was computed before.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from tvmpipe.runtime.head.sample import Result, Sample


@dataclass(frozen=True)
class _End:
    """There are no more samples; `error` is what the source or a sample raised."""

    error: BaseException | None = None


class _Most:
    """How many may be under way: a number, or a function that says it again after each result; it never shrinks."""

    def __init__(self, most: int | Callable[[], int]) -> None:
        self._ask = most if callable(most) else lambda: most
        self.now = self._ask()

    def more(self) -> int:
        """By how many it has grown since it was asked last."""
        before, self.now = self.now, max(self.now, self._ask())
        return self.now - before


def stream(
    submit: Callable[[Sample], Future[Result]], samples: Iterable[Sample], most: int | Callable[[], int]
) -> Iterator[Result]:
    """Results of `samples`, of which at most `most` are under way or wait to be taken."""
    submitted: queue.SimpleQueue[Future[Result] | _End] = queue.SimpleQueue()
    limit = _Most(most)
    room = threading.Semaphore(limit.now)
    stopped = threading.Event()

    def feed() -> None:
        end = _End()
        try:
            source = iter(samples)
            while room.acquire() and not stopped.is_set():
                submitted.put(submit(next(source)))
        except StopIteration:
            pass  # the source is at its end
        except BaseException as error:  # noqa: BLE001  # raised again where the results are taken
            end = _End(error)
        submitted.put(end)

    threading.Thread(target=feed, name="tvmpipe-stream", daemon=True).start()
    try:
        while not isinstance(one := submitted.get(), _End):
            result = one.result()
            room.release(1 + limit.more())
            yield result
        if one.error is not None:
            raise one.error
    finally:
        stopped.set()
        room.release()


async def stream_async(
    submit: Callable[[Sample], Awaitable[asyncio.Future[Result]]],
    samples: Iterable[Sample] | AsyncIterable[Sample],
    most: int | Callable[[], int],
) -> AsyncIterator[Result]:
    """As `stream`, in an event loop."""
    submitted: asyncio.Queue[asyncio.Future[Result] | _End] = asyncio.Queue()
    limit = _Most(most)
    room = asyncio.Semaphore(limit.now)

    async def feed() -> None:
        end = _End()
        try:
            async for sample in _asynchronous(samples):
                await room.acquire()
                submitted.put_nowait(await submit(sample))
        except Exception as error:  # noqa: BLE001  # raised again where the results are taken
            end = _End(error)
        submitted.put_nowait(end)

    feeder = asyncio.create_task(feed())
    try:
        while not isinstance(one := await submitted.get(), _End):
            result = await one
            for _ in range(1 + limit.more()):
                room.release()
            yield result
        if one.error is not None:
            raise one.error
    finally:
        feeder.cancel()


async def _asynchronous(samples: Iterable[Sample] | AsyncIterable[Sample]) -> AsyncIterator[Sample]:
    if isinstance(samples, AsyncIterable):
        async for sample in samples:
            yield sample
    elif isinstance(samples, Sequence):
        for sample in samples:
            yield sample
    else:
        source, none = iter(samples), object()
        # In a thread: it may be a live source, for which the event loop must not wait.
        while (one := await asyncio.to_thread(next, source, none)) is not none:
            yield one  # type: ignore[misc]  # not the mark of the end
