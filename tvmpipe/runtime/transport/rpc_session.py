"""A TVM RPC session with one device, in which every wait ends."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tvm import rpc

from tvmpipe.errors import DeviceError, DeviceLostError, DeviceUnavailableError, InputError, TvmpipeError, reason_of
from tvmpipe.manifest import DeviceEntry
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.security.peer_owner import (
    GoneError,
    OtherUserError,
    check_connections,
    check_listener,
    owners_known,
)
from tvmpipe.runtime.security.tls_client import TlsConnection, shared_tls_client
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address, is_loopback, resolve
from tvmpipe.runtime.transport.tracker import DeviceAddress, Tracker
from tvmpipe.runtime.transport.watchdog import Expired, Watchdog, close_connections

SLOWEST_UPLOAD_BPS = 1e6  # a device that takes files more slowly than this counts as lost


class RpcSession:
    """A connection to a device, for use by one thread at a time. With a cluster key it goes through a TLS connection.

    Without one it goes to loopback only, and there to a server of the same user only. A call may take `timeout_s`,
    which may be changed.

    Raises DeviceError when it may not go there, OtherUserError when the server is another user's, and DeviceLostError,
    from `guard` too, once the device stops answering; the session is then dead.
    """

    def __init__(
        self,
        device: DeviceEntry,
        address: DeviceAddress,
        watchdog: Watchdog,
        timeout_s: float,
        key: ClusterKey | None = None,
    ) -> None:
        self.device = device
        self.timeout_s = timeout_s
        self.registered = (address.host, address.port)  # as the tracker has it
        self.address = _resolve(address, device.name)
        self._watchdog = watchdog
        self._tls_connection: TlsConnection | None = None
        self._functions: dict[str, Any] = {}
        self.remote: Any = None
        via = self.address
        if key is None and not is_loopback(self.address.host):
            raise DeviceError(
                f"device {device.name} is at {self.address.host}, off loopback, where code and tensors travel only "
                "with a cluster key; give the one that its agent has"
            )
        if key is not None:
            self._tls_connection = shared_tls_client(key).open((via.host, via.port), timeout_s)
            via = DeviceAddress(*self._tls_connection.address, via.match_key)
        self._peer = (via.host, via.port)
        # A TLS connection begins in this program's other process; when that ends, another may take its port.
        checked = key is None or owners_known()
        try:
            if checked:
                check_listener(self._peer)
            with self.guard(f"connecting to {format_address(self.address.host, self.address.port)}"):
                self.remote = _connect(via, timeout_s)
            if checked:
                check_connections(remote=self._peer)
        except GoneError as error:
            self.close()
            raise DeviceLostError(
                f"device {device.name} failed while connecting: {error}", device=device.name
            ) from None
        except OtherUserError as error:
            self.close()
            raise OtherUserError(f"device {device.name} is not spoken to: {error}") from None
        except TvmpipeError:
            self.close()
            raise

    def function(self, name: str) -> Any | None:
        """A function that the device's server has registered; None when it has not.

        It lives as long as the session: TVM asks the device to free one and waits for the answer without letting
        other threads run, the watchdog's among them.
        """
        if name not in self._functions:
            try:
                self._functions[name] = self.remote.get_function(name)
            except (AttributeError, RuntimeError):
                return None
        return self._functions[name]

    def interrupt(self) -> None:
        """Make the call that another thread waits in fail; that thread closes the session."""
        close_connections(self._peer)

    def close(self) -> None:
        """End the connection; whoever waits on it gets an error."""
        # The connection first: freeing handles over one whose peer hangs would wait for ever.
        close_connections(self._peer)
        self._functions.clear()
        self.remote = None
        if self._tls_connection is not None:
            self._tls_connection.close()

    @contextlib.contextmanager
    def guard(
        self, doing: str, *, stage: str | None = None, sample: int | None = None, more_s: float = 0.0
    ) -> Iterator[None]:
        """A deadline (the session's, and `more_s`) and error translation for calls into TVM."""
        try:
            with self._watchdog.limit(self._peer, self.timeout_s + more_s):
                yield
        except DeviceError:
            raise
        except Expired as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # TVM reports a lost peer with many exception types
            reason = _reason(error)
        else:
            return
        raise DeviceLostError(
            f"device {self.device.name} (key {self.device.key}, "
            f"{format_address(self.address.host, self.address.port)}) failed while {doing}: {reason}",
            device=self.device.name,
            stage=stage,
            sample=sample,
        )


def open_session(
    tracker: Tracker,
    device: DeviceEntry,
    watchdog: Watchdog,
    deadline: float,
    key: ClusterKey | None = None,
    wanted: Callable[[tuple[str, int]], bool] = lambda _: True,
) -> RpcSession:
    """A session with a device that the tracker grants, before `deadline` (monotonic).

    A device that registered anew since the tracker last heard of it refuses its old key; it is asked for again. So is
    another than `wanted`, which is given the (host, port) that a device registered under: a tracker hands out those of
    a key in turn, and cannot be asked for one of them. Raises DeviceUnavailableError when only others came.
    """
    pause_s = deadlines.SESSION_AGAIN_S
    while True:
        address = tracker.request(device.key, max(0.1, deadline - time.monotonic()))
        try:
            session = RpcSession(device, address, watchdog, max(1.0, deadline - time.monotonic()), key)
        except DeviceLostError:
            if time.monotonic() + deadlines.CONNECT_GRACE_S > deadline:
                raise
            time.sleep(deadlines.REFUSED_AGAIN_S)
            continue
        if wanted(session.registered):
            return session
        session.close()  # it registers again, behind the others
        if time.monotonic() > deadline:
            raise DeviceUnavailableError(f"the tracker gave out others with key {device.key!r} than {device.name}")
        # By chance: of two that got each other's device, each would get it again and again after equal pauses.
        time.sleep(random.uniform(0.5, 1.5) * pause_s)
        pause_s = min(deadlines.LONGEST_SESSION_AGAIN_S, 2 * pause_s)


def _resolve(address: DeviceAddress, device: str) -> DeviceAddress:
    """The same with a numeric host, under which the connection can be found again."""
    try:
        return replace(address, host=resolve(address.host))
    except InputError as error:
        raise DeviceError(f"device {device} registered as {error}") from None


def _connect(address: DeviceAddress, timeout_s: float) -> Any:
    """`rpc.connect` with a deadline for the TCP handshake too, during which there is no connection to close."""
    result: list[Any] = []

    def connect() -> None:
        try:
            result.append(rpc.connect(address.host, address.port, address.match_key))
        except Exception as error:  # noqa: BLE001  # handed to the caller below
            result.append(error)

    thread = threading.Thread(target=connect, name="tvmpipe-connect", daemon=True)
    thread.start()
    thread.join(timeout_s + deadlines.CONNECT_GRACE_S)
    if not result:
        raise Expired(f"no answer within {timeout_s:g} s")
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


def _reason(error: Exception) -> str:
    text = reason_of(error)
    # What TVM's client says when its peer is gone in the middle of a message.
    lost = any(sign in text for sign in ("kShutdown", "RPCCode::kReturn", "Socket", "sockfd"))
    return "the connection was closed" if lost else text
