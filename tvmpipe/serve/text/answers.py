"""What generations make, on the event loop, for as long as the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from tvmpipe.generation.generate import Piece
from tvmpipe.serve.errors import StoppingError
from tvmpipe.serve.text.engine import Engine, Prompt


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
