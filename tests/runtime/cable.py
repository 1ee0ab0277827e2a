"""A TCP relay that stands for a cable: it can be cut, and mended."""

from __future__ import annotations

import contextlib
import random
import socket
import threading


class Cable:
    """Forwards connections to `port` on loopback to a target there. While cut, nothing passes and nobody is told."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._whole = threading.Event()
        self._whole.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """From now on bytes go nowhere."""
        self._whole.clear()

    def mend(self) -> None:
        """End what was cut, as a reset would, and let new connections through."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _shut(pair)
        self._whole.set()

    def close(self) -> None:
        """End everything."""
        self._listener.close()
        self.mend()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._whole.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            near.close()
            return
        self._pairs.append((near, far))
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._whole.wait()
                sink.sendall(data)
        _shut((source, sink))


def _shut(pair: tuple[socket.socket, socket.socket]) -> None:
    for one in pair:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def lasting_ports(count: int) -> list[int]:
    """Ports nothing listens on, of those that the system does not give to outgoing connections meanwhile."""
    found = []
    for port in random.sample(range(20000, 32000), 12000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            break
    return found
