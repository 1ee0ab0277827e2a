"""What generations make, on the event loop, for as long as the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TypeVar

from starlette.types import Receive

from tvmpipe.generation.generate import Piece
from tvmpipe.serve.engine import Engine, Prompt, StoppingError

Value = TypeVar("Value")


class DisconnectedError(Exception):
    """The client has gone."""


class Answers:
    """Pieces of one request's generations as they come. Raises what `Engine.submit` raises."""

    def __init__(self, engine: Engine, prompts: Sequence[Prompt]) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Piece | Exception]] = asyncio.Queue()
        self._left = len(prompts)

        def listen(place: int, event: Piece | Exception) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, (place, event))

        self._ticket = engine.submit(prompts, listen)

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """(which generation, piece) until all have ended. Raises what a generation failed with."""
        while self._left:
            place, event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            if event.finish == "cancelled":
                raise StoppingError
            self._left -= event.finish is not None
            yield place, event

    def cancel(self) -> None:
        """End them all, without waiting for that. Idempotent."""
        self._ticket.cancel()


async def while_connected(receive: Receive, work: Awaitable[Value]) -> Value:
    """Await `work`, and cancel it when the client goes. Raises DisconnectedError then.

    The request's body must have been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_until_disconnect(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise DisconnectedError
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
