"""Ports that stay one agent's while its stage hosts come and go on them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from tvmpipe.errors import InputError
from tvmpipe.runtime.transport.address import listen


@contextlib.contextmanager
def hold_port(host: str, ports: range) -> Iterator[int]:
    """The first of `ports` that nothing on this machine listens on and no other agent holds. Raises InputError.

    What keeps other agents away is a name in Linux's abstract socket namespace, which ends with the process. Holding
    the port itself would not do: it could not be had again for a minute after connections to it were broken.
    """
    with contextlib.ExitStack() as stack:
        for port in ports:
            with contextlib.suppress(OSError), contextlib.ExitStack() as attempt:
                name = attempt.enter_context(socket.socket(socket.AF_UNIX))
                name.bind(f"\0tvmpipe-link-{port}")
                _listen_once(host, port)
                stack.enter_context(attempt.pop_all())
                break
        else:
            which = f"port {ports[0]} is not" if len(ports) == 1 else f"no port from {ports[0]} to {ports[-1]} is"
            raise InputError(f"{which} free on {host} for the stage link")
        yield port


def _listen_once(host: str, port: int) -> None:
    """Raises OSError when something else listens there."""
    listen(host, port).close()
