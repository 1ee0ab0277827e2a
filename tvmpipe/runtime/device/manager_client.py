"""How processes of an agent reach its device manager."""

from __future__ import annotations

import os
from pathlib import Path

import zmq

from tvmpipe.errors import InputError
from tvmpipe.runtime.transport import deadlines


class DeviceManagerClient:
    """Requests to the device manager of this machine, from a process of its own. Raises OSError when none answers."""

    def __init__(self, address: str, timeout_s: float = deadlines.MANAGER_S) -> None:
        self._address = address
        self._timeout_s = timeout_s

    def ask(self, request: str) -> str:
        """A JSON object as it stands in `DeviceManager`, and its answer."""
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._address)
            socket.send(request.encode())
            if not socket.poll(int(self._timeout_s * 1e3)):
                raise OSError("the agent does not answer its own session")
            return socket.recv().decode()


def device_manager_address(folder: Path) -> str:
    """Where a device manager listens, in a folder of this user alone. Raises InputError when the path is too long."""
    path = folder / "manager"
    size = len(os.fsencode(path))
    if size > zmq.IPC_PATH_MAX_LEN:
        raise InputError(
            f"the path of an agent's socket, {path}, has {size} bytes, and the system allows {zmq.IPC_PATH_MAX_LEN}; "
            "set TMPDIR to a shorter folder"
        )
    return f"ipc://{path}"
