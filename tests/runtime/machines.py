"""Machines on a cable or at a switch: network namespaces, which only root can make."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

_POSSIBLE = (
    os.geteuid() == 0
    and shutil.which("ip") is not None
    and subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0
)
NO_NAMESPACES = "" if _POSSIBLE else "only root can make network namespaces, and not everywhere"
"""Why none can be made here; empty when they can."""

needs_namespaces = pytest.mark.skipif(bool(NO_NAMESPACES), reason=NO_NAMESPACES)


@dataclass(frozen=True)
class Machine:
    """A namespace, and its address on the cable."""

    name: str
    address: str

    def start(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Python with these arguments as a process there."""
        with log.open("ab") as out:
            return subprocess.Popen(self._command(arguments), stdout=out, stderr=out)

    def run(self, *arguments: str, patience_s: float = 3 * PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """The same until it ends."""
        return subprocess.run(self._command(arguments), capture_output=True, text=True, timeout=patience_s, check=False)

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return ["ip", "netns", "exec", self.name, sys.executable, *arguments]


@contextlib.contextmanager
def two_machines(first: str, second: str) -> Iterator[tuple[Machine, Machine]]:
    """Machines with these addresses, such as 10.77.0.1/24; they have no other but loopback's."""
    names = [f"tvmpipe-{os.getpid()}-{place}" for place in "ab"]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, (first, second), strict=True):
            _ip("-n", name, "addr", "add", address, "dev", "cable", *(["nodad"] if ":" in address else []))
            for device in ("lo", "cable"):
                _ip("-n", name, "link", "set", device, "up")
        yield Machine(names[0], first.partition("/")[0]), Machine(names[1], second.partition("/")[0])
    finally:
        for name in names:
            _delete(name)


@contextlib.contextmanager
def machines_at_switch(count: int, rate_bps: float | None = None) -> Iterator[list[Machine]]:
    """Machines 10.78.0.1/24 and so on at one switch, whose cables carry `rate_bps` bytes a second each way.

    Needs the kernel's token bucket filter where a rate is given.
    """
    switch = f"tvmpipe-{os.getpid()}-switch"
    names = [f"tvmpipe-{os.getpid()}-{number}" for number in range(1, count + 1)]
    machines = [Machine(name, f"10.78.0.{number}") for number, name in enumerate(names, 1)]
    try:
        for name in (switch, *names):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number, machine in enumerate(machines, 1):
            port = f"port{number}"
            _ip("-n", machine.name, "link", "add", "cable", "type", "veth", "peer", "name", port, "netns", switch)
            _ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", "cable")
            _ip("-n", switch, "link", "set", port, "master", "bridge")
            for namespace, end in ((machine.name, "cable"), (switch, port)):
                _ip("-n", namespace, "link", "set", end, "up")
                if rate_bps is not None:
                    _shape(namespace, end, rate_bps)
        yield machines
    finally:
        for name in names:
            _delete(name)
        _delete(switch)


def _shape(namespace: str, end: str, rate_bps: float) -> None:
    rate = ["rate", f"{round(8 * rate_bps)}bit", "burst", "256kb", "latency", "50ms"]
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, "tc", "qdisc", "add", "dev", end, "root", "tbf", *rate],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"tc: {done.stderr}"


def _delete(name: str) -> None:
    """A namespace with all that runs there."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    for pid in found.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
