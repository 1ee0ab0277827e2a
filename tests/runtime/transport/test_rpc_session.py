"""Sessions with the devices that a tracker grants."""

from __future__ import annotations

import threading
import time
from typing import cast

import pytest

from tests.waiting import PATIENCE_S
from tvmpipe.manifest import DeviceEntry
from tvmpipe.runtime.transport import rpc_session
from tvmpipe.runtime.transport.rpc_session import open_session
from tvmpipe.runtime.transport.tracker import DeviceAddress, Tracker
from tvmpipe.runtime.transport.watchdog import Watchdog


class Swapping:
    """A tracker's queue of two devices with one key: of two that ask at the same time, each gets the other's."""

    def __init__(self) -> None:
        self._free = [1, 2]
        self._asking: set[int] = set()
        self._changed = threading.Condition()

    def request(self, own: int) -> DeviceAddress:
        with self._changed:
            self._asking.add(own)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._asking) == 2, 0.005)
            self._changed.wait_for(lambda: self._free, PATIENCE_S)
            got = 3 - own if len(self._asking) == 2 and 3 - own in self._free else self._free[0]
            self._free.remove(got)
            self._changed.wait(0.005)
            self._asking.discard(own)
            return DeviceAddress("127.0.0.1", got, "")

    def back(self, port: int) -> None:
        with self._changed:
            self._free.append(port)
            self._changed.notify_all()


def test_two_that_get_each_others_device_do_not_go_on_so_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Swapping()

    class Asking:
        def __init__(self, own: int) -> None:
            self.own = own

        def request(self, key: str, timeout_s: float) -> DeviceAddress:
            return queue.request(self.own)

    class Session:
        def __init__(self, device: DeviceEntry, address: DeviceAddress, *_: object) -> None:
            self.registered = (address.host, address.port)

        def close(self) -> None:
            queue.back(self.registered[1])

    monkeypatch.setattr(rpc_session, "RpcSession", Session)
    device = DeviceEntry(
        name="pi", key="pi", target="native", triple="", cpu="", identity="", threads=1, memory_bytes=None
    )
    got: dict[int, int] = {}

    def work(own: int) -> None:
        tracker = cast(Tracker, Asking(own))
        deadline = time.monotonic() + PATIENCE_S / 4
        session = open_session(tracker, device, Watchdog(), deadline, wanted=lambda place: place[1] == own)
        got[own] = session.registered[1]

    threads = [threading.Thread(target=work, args=(own,), daemon=True) for own in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert got == {1: 1, 2: 2}
