"""How much of what is sent may lie in the kernel: enough for what is on its way, little enough for heartbeats.

TCP keeps what it has sent until that is acknowledged, a round trip later at the earliest, and longer where some of it
got lost. A buffer that holds less than bandwidth times delay leaves the link idle. But a heartbeat waits behind all
that lies in the buffer, and must not wait for longer than its answer may take; and what does not stay in a processor's
cache makes loopback slower. So buffers are as small as a link allows.

Linux makes them as large as it sees a connection need, unless it is asked for a size, which may not exceed wmem_max.
Where that is too little, or nothing is known of a link, it is left to the kernel. What then may wait without being sent
is bounded by itself: a link may be slower than a plan believes.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

_BUFFERED_S = 0.25  # of the bandwidth; the kernel doubles what it is asked for
_ROUND_TRIPS = 2  # what gets lost is sent again and kept for another one
_LEAST_BYTES = 4 << 10  # what Linux allows in any case, enough for links from 20 kB/s up
_MOST_BYTES = 256 << 10  # where the delay does not ask for more: more was not faster on loopback
_UNSENT_BYTES = 64 << 10
_SYSTEM = Path("/proc/sys/net")


def send_buffer_bytes(bandwidth_bps: float | None, latency_s: float = 0.0, system: Path = _SYSTEM) -> int | None:
    """The size to ask for on a link of so much bandwidth and latency, one way; None: leave it to the kernel.

    `system`: the folder in which Linux says what it allows; others allow what is asked for where delays are short.
    """
    if bandwidth_bps is None:
        return None
    needed = int(bandwidth_bps * 2 * latency_s * _ROUND_TRIPS)
    if needed > _MOST_BYTES:
        return needed if needed <= _allowed_bytes(system) else None
    return max(_LEAST_BYTES, needed, min(_MOST_BYTES, int(bandwidth_bps * _BUFFERED_S)))


def _allowed_bytes(system: Path) -> int:
    try:
        return int((system / "core" / "wmem_max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _MOST_BYTES


def bound_unsent(descriptor: int) -> None:
    """Have a connection's kernel take little more than it can send at once; what is on its way does not count.

    Its socket may have been closed by whom it belongs to. Then nothing happens; or, where something else has got its
    descriptor, to a TCP connection of this process the same as here.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is None:
        return
    # Closed, or no TCP socket any more.
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        own = os.dup(descriptor)
        stack.callback(os.close, own)
        same = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=own)
        stack.callback(same.detach)  # what is closed is `own`, once
        same.setsockopt(socket.IPPROTO_TCP, option, _UNSENT_BYTES)
