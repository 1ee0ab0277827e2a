"""Whether the stage links of a plan can work: what can be told before a tensor is sent."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from tvmpipe.errors import DeviceError
from tvmpipe.manifest import PlanEntry
from tvmpipe.runtime.head.agent_client import NoRoom
from tvmpipe.runtime.head.opened import NoRoomError, OpenError
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import is_loopback, own_addresses, parse_address, resolve


def check_reachable(links: Mapping[str, str]) -> None:
    """Whether this machine reaches the links of a prepared plan, some at ports that were not used before."""
    for device, link in links.items():
        try:
            socket.create_connection(parse_address(link, "link"), timeout=deadlines.CHANGE_OVER_S).close()
        except OSError as error:
            why = NoRoom(f"the link port {link} of device {device} cannot be reached: {error.strerror or error}")
            raise NoRoomError(device, why) from None


def check_links(plan: PlanEntry, links: Mapping[str, str]) -> None:
    """Raises OpenError when a device would be sent to at a loopback address by one on another machine."""
    hosts = {name: resolve(parse_address(link, "link")[0]) for name, link in links.items()}
    if len({is_loopback(host) for host in hosts.values()}) < 2:
        return
    here = own_addresses()
    for link in plan.links:
        there, receiver = hosts.get(link.sender), hosts.get(link.receiver)
        if there is None or receiver is None or not is_loopback(receiver) or is_loopback(there) or there in here:
            continue
        cause = DeviceError(
            f"device {link.receiver} is at {receiver}, which to device {link.sender} at {there} is itself: start the "
            f"agent of {link.receiver} with --host 0.0.0.0 or with the address that the others have for its machine"
        )
        raise OpenError(link.receiver, cause)
