"""Two network namespaces on this machine, as far from each other as wanted: a rate, a delay and a loss of packets.

    with FarLink(rate_bps=12.5e6, delay_s=20e-3, loss=0.01) as link:
        link.start(0, [sys.executable, "-m", ...])      # a process at one end, whose address is link.addresses[0]

What netem does in a kernel that has it, a relay does here between two TUN devices, packet by packet: each direction
sends its packets one after the other at the rate, drops what its queue does not hold and some of the rest, and hands
on what is left after the delay. Needs root and /dev/net/tun; some 10,000 packets a second, so 100 Mbit/s.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from tvmpipe.errors import reason_of

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MTU = 1500


def why_not() -> str | None:
    """Why namespaces cannot be had here, None if they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in ("ip", "nsenter") if shutil.which(name) is None]:
        return f"network namespaces need {missing[0]}"
    try:
        with FarLink(1e6, 0.0):
            return None
    except (OSError, RuntimeError) as error:
        return f"no network namespaces with TUN devices here: {error}"


class FarLink:
    """A context manager; `rate_bps` bytes a second and `delay_s` each way, `loss` the share of packets that get lost.

    `queue_s`: how much a port holds before it drops, in seconds of the rate. `congestion`: how TCP reacts to losses, a
    name that Linux knows; None: as this machine does. Raises RuntimeError saying what cannot be done here.
    """

    addresses = ("10.123.0.1", "10.123.0.2")

    def __init__(
        self,
        rate_bps: float,
        delay_s: float,
        loss: float = 0.0,
        *,
        queue_s: float = 0.1,
        congestion: str | None = None,
    ) -> None:
        self._arguments = [*map(str, (rate_bps, delay_s, loss, queue_s)), congestion or ""]

    def __enter__(self) -> FarLink:
        command = [sys.executable, "-m", "benchmarks.far", *self._arguments]
        self._relay = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._relay.stdout is not None
        said = self._relay.stdout.readline().split()
        if len(said) != 2:
            _, error = self._relay.communicate()
            raise RuntimeError(reason_of(error) if error.strip() else "the relay ended")
        self._namespaces = [f"/proc/{self._relay.pid}/fd/{number}" for number in said]
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._relay.communicate(timeout=5)  # its input ends
        self._relay.kill()
        self._relay.wait()

    @property
    def relay_pid(self) -> int:
        """The process that carries the packets."""
        return self._relay.pid

    def start(self, end: int, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """A process in the namespace of one end, 0 or 1; before others, as a machine of its own would run it."""
        first = ["nice", "-n", "-10", "nsenter", f"--net={self._namespaces[end]}"]
        return subprocess.Popen([*first, *command], text=True, **options)


def _main(rate_bps: float, delay_s: float, loss: float, queue_s: float, congestion: str) -> None:
    with contextlib.suppress(OSError):  # not every root may; without, a busy machine's delays come on top
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    ends = [_namespace(address, congestion) for address in FarLink.addresses]
    print(*(namespace for namespace, _ in ends), flush=True)
    _relay([device for _, device in ends], rate_bps, delay_s, loss, queue_s)


def _namespace(address: str, congestion: str) -> tuple[int, int]:
    """File descriptors of a new namespace, which this thread is in from now on, and of the TUN device there."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22s", b"far0", _IFF_TUN | _IFF_NO_PI, b""))
    set_up = [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{address}/24", "dev", "far0"],
        ["ip", "link", "set", "far0", "mtu", str(_MTU), "txqueuelen", "10000", "up"],
    ]
    for command in set_up:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
    if congestion:
        with open("/proc/sys/net/ipv4/tcp_congestion_control", "w", encoding="ascii") as setting:
            setting.write(congestion)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY), device


def _relay(devices: Sequence[int], rate_bps: float, delay_s: float, loss: float, queue_s: float) -> None:
    """Carry packets both ways until this process's input ends."""
    chance = random.Random(1)
    ways = [deque[tuple[float, bytes]](), deque[tuple[float, bytes]]()]  # due, packet
    free_at = [0.0, 0.0]
    while True:
        now = time.monotonic()
        for way, out in zip(ways, reversed(devices), strict=True):
            while way and way[0][0] <= now:
                with contextlib.suppress(BlockingIOError):  # the other end takes no more: a loss
                    os.write(out, way.popleft()[1])
        waits = [way[0][0] - now for way in ways if way]
        readable, _, _ = select.select([0, *devices], [], [], max(0.0, min(waits)) if waits else None)
        if 0 in readable:
            return
        for number, device in enumerate(devices):
            if device not in readable:
                continue
            now = time.monotonic()
            for _ in range(256):
                try:
                    packet = os.read(device, _MTU + 64)
                except BlockingIOError:
                    break
                start = max(free_at[number], now)
                if start - now > queue_s or chance.random() < loss:
                    continue
                free_at[number] = start + len(packet) / rate_bps
                ways[number].append((free_at[number] + delay_s, packet))


if __name__ == "__main__":
    rate, delay, lost, queued = map(float, sys.argv[1:5])
    _main(rate, delay, lost, queued, sys.argv[5])
