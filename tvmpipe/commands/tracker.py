"""`tvmpipe tracker`: where agents register, and heads ask for devices."""

from __future__ import annotations

import contextlib
import signal
import sys

from tvmpipe.commands.progress import stderr, warn
from tvmpipe.console import plain
from tvmpipe.runtime.tools.tracker_server import listening_socket, serve_tracker
from tvmpipe.runtime.transport.address import format_address, is_loopback


def run_tracker(host: str, port: int) -> None:
    """Serve until interrupted. Raises InputError when nothing can listen there."""
    if not is_loopback(host):
        warn("whoever reaches the tracker can list and register devices; agents and heads trust the cluster key alone")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with listening_socket(host, port) as listening, contextlib.suppress(KeyboardInterrupt):
        stderr.print(plain(f"tracker on {format_address(host, port)}; Ctrl-C ends it"))
        serve_tracker(listening)
