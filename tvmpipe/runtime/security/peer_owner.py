"""Whose process is at the other end of a connection on this machine.

Every user of a machine reaches its loopback ports. Without a cluster key only the user's own processes are spoken to,
and Linux says whose a connection is (/proc/net/tcp, proc_pid_net(5)): an attribute of the socket that its process
cannot choose, known before a byte is read.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tvmpipe.errors import DeviceError, InputError
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address, numeric

Address = tuple[str, int]

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED, _CLOSE_WAIT, _LISTEN = 0x01, 0x08, 0x0A
_LOOKS = 3  # the tables are read while they change, so that an entry may be passed over


class OtherUserError(DeviceError):
    """The other end belongs to another user of this machine."""


class GoneError(OtherUserError):
    """No process holds the other end any more, so that nobody can say whose it was."""


@dataclass(frozen=True)
class _Entry:
    """A line of the table. `inode` is 0 for a connection that no process holds any more: its uid says nothing."""

    local: Address
    remote: Address
    state: int
    uid: int
    inode: int


def owners_known() -> bool:
    """Whether the system says whose a connection is."""
    return _TABLES[0].exists()


def require_owners() -> None:
    """Raises InputError where the system does not say whose a connection is."""
    if not owners_known():
        raise InputError(
            f"this system does not say whose a connection is (it has no {_TABLES[0]}): give a cluster key, on loopback "
            "too"
        )


def check_listener(address: Address) -> None:
    """Make sure that what listens at a loopback address is this user's. Raises OtherUserError.

    Says nothing where nothing listens: whoever connects finds out.
    """
    require_owners()
    ports = [entry for entry in _table() if entry.state == _LISTEN and entry.local[1] == address[1]]
    exact = [entry for entry in ports if entry.local[0] == address[0]]
    for entry in exact or [entry for entry in ports if entry.local[0] in ("0.0.0.0", "::")]:
        if entry.uid != os.geteuid():
            raise OtherUserError(_of_another(f"what listens at {format_address(*address)}", entry.uid))


def check_peer(connection: socket.socket) -> None:
    """Make sure that the other end of a connection is this user's, where it is on loopback. Raises OtherUserError."""
    gone = GoneError("the peer was gone before it could be told whose it was")
    try:
        here, there = _ends(connection)
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        raise gone from None
    if state == _CLOSE_WAIT:
        raise gone  # at once: to look for it in the tables takes long when many do so
    if ipaddress.ip_address(there[0]).is_loopback:
        require_owners()
        _check(here, there)


def check_connections(*, local_port: int | None = None, remote: Address | None = None) -> None:
    """Make sure that every connection of this process that came in at a port of loopback, or goes to an address, is to
    a process of this user; those that do not are ended. Raises OtherUserError for the first of them, GoneError where
    there is none at all.

    For connections that a library holds, which does not say which is which.
    """
    require_owners()
    refused: OtherUserError | None = None
    found = False
    for connection in _own_connections():
        with contextlib.suppress(OSError):  # not connected, or closed in the meantime
            here, there = _ends(connection)
            if (here[1] == local_port and ipaddress.ip_address(here[0]).is_loopback) or there == remote:
                found = True
                try:
                    _check(here, there)
                except OtherUserError as error:
                    refused = refused or error
                    connection.shutdown(socket.SHUT_RDWR)
    if refused is not None:
        raise refused
    if not found:
        raise GoneError("the connection has ended")


def _check(here: Address, there: Address) -> None:
    for look in range(_LOOKS):
        if look:
            time.sleep(deadlines.OWNERS_AGAIN_S)
        for entry in _table():
            if (entry.local, entry.remote) == (there, here):
                if entry.state != _ESTABLISHED or not entry.inode:
                    continue  # it has closed its end, or not accepted it yet
                if entry.uid != os.geteuid():
                    raise OtherUserError(_of_another(f"the process at {format_address(*there)}", entry.uid))
                return
    raise GoneError(f"no process at {format_address(*there)} holds the other end of the connection")


def _of_another(what: str, uid: int) -> str:
    return (
        f"{what} is another user's of this machine (uid {uid}, this is uid {os.geteuid()}): without a cluster key only "
        "processes of the same user speak to each other; give both ends the same --cluster-key file"
    )


def _ends(connection: socket.socket) -> tuple[Address, Address]:
    here, there = connection.getsockname(), connection.getpeername()
    return (numeric(here[0]), here[1]), (numeric(there[0]), there[1])


def _own_connections() -> Iterator[socket.socket]:
    """Duplicates of this process's TCP sockets, each closed after its turn."""
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # closed in the meantime
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as connection:
                    if connection.family in (socket.AF_INET, socket.AF_INET6):
                        yield connection


def _table() -> Iterator[_Entry]:
    """What listens, and what is connected. The rest, most of it connections that have ended, is not even read."""
    for path in _TABLES:
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6 has one table
            for line in path.read_text().splitlines()[1:]:
                _, local, remote, state, _, _, _, uid, _, inode, *_ = line.split()
                if int(state, 16) in (_ESTABLISHED, _LISTEN):
                    yield _Entry(_address(local), _address(remote), int(state, 16), int(uid), int(inode))


def _address(text: str) -> Address:
    """What the kernel prints as words in its own byte order, and the port."""
    words, _, port = text.partition(":")
    raw = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    return numeric(str(ipaddress.ip_address(raw))), int(port, 16)
