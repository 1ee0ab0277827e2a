"""The server as a process: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from tvmpipe.errors import InputError
from tvmpipe.runtime.transport.address import format_address, is_loopback, listen
from tvmpipe.serve.access import load_token
from tvmpipe.serve.connections import TimedConnection

_BACKLOG = 1024
_OTHER_CONNECTIONS = 256
"""Connections beside those that a server counts on; those beyond get 503 at once."""
_LAST_STEP_S = 10
"""Once what runs is cancelled, the step that is under way and the last event may take this long."""


@dataclass(frozen=True)
class ServeOptions:
    """Where a server listens and what it takes.

    `queue` requests at most wait for their turn. When the server is told to end, what runs and waits has `drain_s`
    seconds; what is not done by then is cancelled, and its client told. `port` 0 is any that is free.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    queue: int = 64
    drain_s: float = 30.0


class HttpServer:
    """Serves an application until `run` returns. It listens from the start, and answers in `run`.

    `make_app` is given the token that clients must have; `connections` at most may be there, and `ending` is called
    `drain_s` seconds after the server was told to end, for what is not done by then.

    Raises InputError where it cannot listen, and off loopback without a token.
    """

    def __init__(
        self,
        make_app: Callable[[str | None], ASGIApp],
        options: ServeOptions,
        connections: int,
        ending: Callable[[], object] = lambda: None,
    ) -> None:
        token = None if options.token_file is None else load_token(options.token_file)
        if token is None and not is_loopback(options.host):
            raise InputError(
                f"{options.host} is not loopback: whoever reaches it could use the model; "
                f"give --token-file with a token that clients must have"
            )
        try:
            self._socket = listen(options.host, options.port, backlog=_BACKLOG)
        except OSError as error:
            address = format_address(options.host, options.port)
            raise InputError(f"cannot listen on {address}: {error.strerror or error}") from None
        self.port: int = self._socket.getsockname()[1]
        self.address = format_address(options.host, self.port)
        self._server = _Server(
            uvicorn.Config(
                make_app(token),
                log_config=None,
                log_level="error",  # its warnings are of clients that send no HTTP
                access_log=False,
                server_header=False,
                http=TimedConnection,
                ws="none",
                backlog=_BACKLOG,
                limit_concurrency=connections + _OTHER_CONNECTIONS,
                timeout_graceful_shutdown=math.ceil(options.drain_s) + _LAST_STEP_S,
            ),
            lambda loop: loop.call_later(options.drain_s, ending),
        )

    def run(self) -> None:
        """Serve until `stop`, SIGTERM or SIGINT; then take no more requests, and return when those there are answered.

        In the main thread SIGINT raises KeyboardInterrupt after that; a second one ends at once.
        """
        try:
            with _terminated_quietly():
                self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Have `run` return, from any thread."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn's, which says when its end begins."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[asyncio.AbstractEventLoop], object]) -> None:
        super().__init__(config)
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending(asyncio.get_running_loop())
        await super().shutdown(sockets)


@contextlib.contextmanager
def _terminated_quietly() -> Iterator[None]:
    """uvicorn raises SIGTERM again when it has ended, which would end the process before devices are let go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
