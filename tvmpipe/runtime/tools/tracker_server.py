"""TVM's RPC tracker, on one port, in the process that asks for it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket

from tvmpipe.errors import InputError
from tvmpipe.runtime.transport.address import format_address, listen
from tvmpipe.runtime.tvm_runtime import import_runtime


def serve_tracker(listening: socket.socket) -> None:
    """Serve on a `listening_socket` until interrupted."""
    import_runtime()
    from tvm.rpc import tracker

    logging.getLogger("RPCTracker").setLevel(logging.WARNING)
    asyncio.set_event_loop(asyncio.new_event_loop())
    # It would end for whoever knows this word.
    tracker.TrackerServerHandler(listening, f"tracker:{secrets.token_hex(16)}").run()


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InputError, with what to do where another one does."""
    try:
        return listen(host, port)
    except OSError as error:
        raise InputError(
            f"the tracker cannot listen on {format_address(host, port)}: {error.strerror or error}; a tracker that "
            "runs already can be used, or give another --port"
        ) from None
