"""`tvmpipe tracker`: where agents register, and heads ask for devices."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from pathlib import Path

from tvmpipe.commands.progress import stderr, warn
from tvmpipe.console import plain
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.tools.tracker_server import listening_socket, serve_tracker
from tvmpipe.runtime.transport.address import format_address, is_loopback, listening_host
from tvmpipe.runtime.transport.announce import Announcement, announcing


def run_tracker(host: str, port: int, cluster_key: Path | None, *, announce: bool) -> None:
    """Serve until interrupted, and with `announce` tell the local network of it, where zeroconf is installed.

    Raises InputError when nothing can listen there, or the key cannot be read, of which the fingerprint is told.
    """
    fingerprint = "" if cluster_key is None else ClusterKey.load(cluster_key).fingerprint
    if not is_loopback(host):
        warn("whoever reaches the tracker can list and register devices; agents and heads trust the cluster key alone")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    told = Announcement("tracker", socket.gethostname(), listening_host(host), port, fingerprint)
    with (
        listening_socket(host, port) as listening,
        announcing(told if announce else None),
        contextlib.suppress(KeyboardInterrupt),
    ):
        stderr.print(plain(f"tracker on {format_address(host, port)}; Ctrl-C ends it"))
        serve_tracker(listening)
