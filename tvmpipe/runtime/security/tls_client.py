"""The head's side of TLS: loopback ports that lead to the TVM RPC servers behind agents' TLS servers.

The bytes are carried by a process of their own. TVM's client holds Python's global lock while it frees a remote
object, which takes an answer from the device: threads of this process could not carry that answer.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import threading

from tvmpipe.errors import DeviceError
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.security.tls_relay import hang_up
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address

_PROCESS = "tvmpipe.runtime.security.tls_client_process"


class UnreachableError(DeviceError):
    """Nothing answers at the address of a TLS server."""


class NotATlsServerError(DeviceError):
    """Something answers, but not as a tvmpipe TLS server."""


class WrongKeyError(DeviceError):
    """The other end holds another cluster key."""


_ERRORS: dict[str, type[DeviceError]] = {
    error.__name__: error for error in (UnreachableError, NotATlsServerError, WrongKeyError)
}


class TlsConnection:
    """The way to one TLS server: connect to `port` on 127.0.0.1 once, from this process. A context manager."""

    def __init__(self, control: socket.socket, port: int) -> None:
        self._control = control
        self.port = port

    def __enter__(self) -> TlsConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """What to connect to."""
        return "127.0.0.1", self.port

    def close(self) -> None:
        """End the TLS connection and whatever goes through it."""
        hang_up(self._control)  # closing alone would not do: a forked process may have a copy
        self._control.close()


class TlsClient:
    """Opens TLS connections with one cluster key, from any thread; a context manager. The first starts its process."""

    def __init__(self, key: ClusterKey) -> None:
        self._key = key
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def __enter__(self) -> TlsClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, address: tuple[str, int], timeout_s: float) -> TlsConnection:
        """Connect to the TLS server at (host, port) and prove that both ends hold the key.

        The TLS connection then waits `timeout_s` for its one connection, which must come from this process. Raises
        UnreachableError, NotATlsServerError or WrongKeyError within about `timeout_s`.
        """
        where = format_address(*address)
        control, other = socket.socketpair()
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(control.close)
            with other, self._lock:
                requests, started = self._started()
                try:
                    socket.send_fds(requests, [b"+"], [other.fileno()])
                except OSError:
                    raise DeviceError(
                        f"the process that carries TLS connections ended, and the one to {where} with it"
                    ) from None
            control.settimeout(timeout_s + (deadlines.TLS_CLIENT_START_S if started else deadlines.TLS_CLIENT_S))
            request = {"host": address[0], "port": address[1], "timeout_s": timeout_s}
            try:
                control.sendall(json.dumps(request).encode() + b"\n")
                with control.makefile("rb") as replies:
                    reply = json.loads(replies.readline())
            except (OSError, ValueError):
                raise DeviceError(f"the process that carries TLS connections did not open the one to {where}") from None
            if "error" in reply:
                raise _ERRORS.get(reply["error"], DeviceError)(reply["message"])
            cleanup.pop_all()
            return TlsConnection(control, reply["port"])

    def close(self) -> None:
        """End every TLS connection, and the process."""
        with self._lock:
            if self._process is not None and self._requests is not None:
                self._requests.close()
                self._process.kill()
                self._process.wait()
            self._process = self._requests = None

    def _started(self) -> tuple[socket.socket, bool]:
        """Where requests go, and whether the process was started just now."""
        if self._process is not None and self._requests is not None and self._process.poll() is None:
            return self._requests, False
        if self._requests is not None:
            self._requests.close()
        self._requests, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _PROCESS, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._requests.sendall(self._key.secret)  # not as an argument, which every user of the machine could read
        return self._requests, True


@functools.cache
def shared_tls_client(key: ClusterKey) -> TlsClient:
    """This process's TLS connections with a key: one process carries them all, and ends with this one."""
    return TlsClient(key)
