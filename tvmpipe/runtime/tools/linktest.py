"""Whether the links between a device and this machine work, and how fast."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import statistics
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tvmpipe.errors import DeviceError
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import address_towards, family_of, format_address, parse_address
from tvmpipe.runtime.transport.link_times import LONGEST_MESSAGE_BYTES, LinkEnd, LinkTimes, link_end
from tvmpipe.runtime.transport.link_watch import read_event
from tvmpipe.runtime.transport.sockets import Sockets, head_hosts

_SMALL_BYTES = 4096
_SMALL_MESSAGES = 20
_LARGE_BYTES = 1 << 20
_LARGE_MESSAGES = 16
_WAYS = ("sent", "received")


@dataclass(frozen=True)
class LinkSpeed:
    """Of 4 KiB there and back the median, in seconds; and bytes/s of 16 MiB, both ways at the same time."""

    round_trip_s: float
    bytes_per_s: float


def dial_back(agent: AgentClient) -> tuple[str, float]:
    """Have the device connect to a new port of this machine. Returns to which address, and the seconds it took.

    Raises DeviceError.
    """
    session = agent.session
    call = session.function("tvmpipe.dial_back")
    if call is None:
        raise DeviceError("the agent cannot dial back; it is of another version")
    host = address_towards(session.address.host, session.address.port)
    nonce = secrets.token_hex(16)
    with socket.create_server((host, 0), family=family_of(host)) as listener:
        threading.Thread(target=_answer, args=(listener, nonce.encode()), daemon=True).start()
        address = format_address(host, listener.getsockname()[1])
        with session.guard("dialling back", more_s=deadlines.DIAL_S):
            answer = json.loads(str(call(address, nonce)))
    if "error" in answer:
        raise DeviceError(f"it cannot connect to this machine at {address}: {answer['error']}")
    return host, float(answer["seconds"])


def _answer(listener: socket.socket, nonce: bytes) -> None:
    """Give the nonce back to whoever brings it."""
    listener.settimeout(deadlines.DIAL_S + deadlines.CONNECT_GRACE_S)
    with contextlib.suppress(OSError):  # nobody came, or went again: the device tells
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(deadlines.DIAL_S)
                if connection.makefile("rb").read(len(nonce)) == nonce:
                    connection.sendall(nonce)
                    return


def measure_link(agent: AgentClient, key: ClusterKey | None) -> LinkSpeed:
    """Time messages to the device's stage link and back over another, as tensors go. Raises DeviceError."""
    with _towards(agent, key) as end:
        trips = [end.exchange(_SMALL_BYTES, _SMALL_BYTES, 1, deadlines.DIAL_S) for _ in range(_SMALL_MESSAGES)]
        took = end.exchange(_LARGE_BYTES, _LARGE_BYTES, _LARGE_MESSAGES, deadlines.TRANSFER_S)
    return LinkSpeed(statistics.median(trips), _LARGE_BYTES * _LARGE_MESSAGES / took)


def time_head_link(agent: AgentClient, key: ClusterKey | None) -> LinkTimes:
    """Time small messages and streams of tensors between this machine and a device. Raises DeviceError."""
    with _towards(agent, key) as end:
        return end.time_link()


def try_pair(asking: AgentClient, answering: AgentClient) -> float:
    """Have one device send to another and that answer, as stages would. Returns seconds there and back.

    Raises DeviceError saying what keeps them from it.
    """
    return float(_ask_pair(asking, answering, "try_link")["seconds"])


def time_pair(asking: AgentClient, answering: AgentClient) -> LinkTimes:
    """Have one device time tensors to another and back, without this machine in between. Raises DeviceError."""
    found = _ask_pair(asking, answering, "time_link")
    sent, received = ([(int(size), list(map(float, arrived))) for size, arrived in found[way]] for way in _WAYS)
    return LinkTimes(list(map(float, found["trips_s"])), sent, received)


def _ask_pair(asking: AgentClient, answering: AgentClient, name: str) -> dict[str, Any]:
    """What a probe of one agent says of its link to another, which answers meanwhile. Raises DeviceError."""
    call = _function(asking, name)
    with (
        _answering(answering, asking.link_address) as failures,
        asking.session.guard("measuring its link", more_s=deadlines.LINK_TIMES_S),
    ):
        found: dict[str, Any] = json.loads(str(call(answering.link_address)))
    if "error" in found:
        raise DeviceError(failures[0] if failures else found["error"])
    return found


def _function(agent: AgentClient, name: str) -> Any:
    call = agent.session.function(f"tvmpipe.{name}")
    if call is None:
        raise DeviceError("the agent cannot measure its link; it is of another version")
    return call


@contextlib.contextmanager
def _towards(agent: AgentClient, key: ClusterKey | None) -> Iterator[LinkEnd]:
    """This end of a link to a device that answers. Raises DeviceError saying which way does not work."""
    host = address_towards(agent.session.address.host, agent.session.address.port)
    # Nobody would hear of a missed heartbeat, and before its speed is known any link may miss some.
    with Sockets(key, heartbeat_s=None) as sockets:
        # As a head listens, so that what works here works there.
        inbox, port = sockets.pull(head_hosts(key), max_frame_bytes=LONGEST_MESSAGE_BYTES)
        outbox, monitor = sockets.push(parse_address(agent.link_address, "link"), queue=0)
        here = format_address(host, port)
        with _answering(agent, here) as failures, link_end(inbox, outbox, asks=True) as end:
            try:
                end.exchange(_SMALL_BYTES, _SMALL_BYTES, 1, deadlines.DIAL_S)
            except DeviceError:
                raise DeviceError(failures[0] if failures else _why(agent, monitor, here)) from None
            yield end


@contextlib.contextmanager
def _answering(agent: AgentClient, address: str) -> Iterator[list[str]]:
    """The agent answers meanwhile; what keeps it from that is put into the list."""
    call = _function(agent, "echo")
    failures: list[str] = []

    def work() -> None:
        try:
            with agent.session.guard("measuring its link", more_s=deadlines.LINK_TIMES_S + deadlines.ECHO_S):
                answer = json.loads(str(call(address, deadlines.LINK_TIMES_S)))
            failures.extend([answer["error"]] if "error" in answer else [])
        except DeviceError as error:
            failures.append(str(error))

    thread = threading.Thread(target=work, name="tvmpipe-echo", daemon=True)
    thread.start()
    try:
        yield failures
    finally:
        thread.join(deadlines.DIAL_S)
        if thread.is_alive():
            agent.session.close()  # the end did not reach it


def _why(agent: AgentClient, monitor: Any, here: str) -> str:
    """Which way the link does not work."""
    kinds = []
    while monitor.poll(0):
        kinds.append(read_event(monitor).kind)
    if "ready" in kinds:
        return f"messages reach the device, but it cannot send to this machine at {here}"
    if "refused" in kinds:
        return f"what listens at the device's stage link {agent.link_address} holds another cluster key"
    return f"this machine cannot connect to the device's stage link at {agent.link_address}"
