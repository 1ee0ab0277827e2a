"""What the devices behind a tracker are doing, asked of all of them at the same time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from tvmpipe.errors import DeviceUnavailableError, TvmpipeError
from tvmpipe.manifest import DeviceEntry
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address
from tvmpipe.runtime.transport.rpc_session import RpcSession
from tvmpipe.runtime.transport.tracker import KeyStatus, Tracker
from tvmpipe.runtime.transport.watchdog import Watchdog


@dataclass(frozen=True)
class DeviceReport:
    """One device.

    Attributes: `kind` is "agent" (with what it said of itself in `facts`), "stock" for a TVM RPC server, "busy" when
    another session has it just now, or "silent" with the reason in `message`.
    """

    key: str
    address: str
    kind: str
    message: str = ""
    facts: AgentFacts | None = None


class ClusterStatus:
    """Looks at the devices behind a tracker, again and again if wanted; a context manager.

    A device that does not answer costs no more than `timeout_s` of a look, however often it is looked at.
    """

    def __init__(self, tracker: str, key: ClusterKey | None = None, *, timeout_s: float = deadlines.STATUS_S) -> None:
        self._tracker = tracker
        self._key = key
        self._timeout_s = timeout_s
        self._watchdog = Watchdog()
        self._lock = threading.Lock()
        self._asking: dict[str, int] = {}
        self._silent: dict[str, DeviceReport] = {}
        self._stopped = False

    def __enter__(self) -> ClusterStatus:
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.stop()

    def poll(self) -> list[DeviceReport]:
        """Every registered device, by key and address. Raises TrackerError when the tracker does not answer."""
        with Tracker(self._tracker, self._timeout_s) as tracker:
            keys = [status for status in tracker.status() if status.total]
        reports: dict[str, DeviceReport] = {}
        threads = [
            threading.Thread(target=self._ask, args=(status.key, reports), name="tvmpipe-cluster-status", daemon=True)
            for status in keys
            for _ in range(self._unasked(status))
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 2 * self._timeout_s
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            return [self._report(status.key, address, reports) for status in keys for address in status.addresses]

    def _unasked(self, status: KeyStatus) -> int:
        """How many devices of a key nobody here still waits for; these are then waited for."""
        with self._lock:
            count = max(0, status.total - self._asking.get(status.key, 0))
            self._asking[status.key] = self._asking.get(status.key, 0) + count
            return count

    def _report(self, key: str, address: str, reports: dict[str, DeviceReport]) -> DeviceReport:
        if address in reports:
            return reports[address]
        # One that did not answer is not given out again: to the tracker, we have it.
        busy = DeviceReport(key, address, "busy", "another session has it now, or it hangs")
        return self._silent.get(address, busy)

    def _ask(self, key: str, reports: dict[str, DeviceReport]) -> None:
        """Get any device of a key, and note what it says."""
        try:
            with Tracker(self._tracker, self._timeout_s) as tracker:
                self._await_free(tracker, key)
                grant = tracker.request(key, self._timeout_s)
            address = format_address(grant.host, grant.port)
            self._note(DeviceReport(key, address, "silent", f"no answer within {self._timeout_s:g} s"), reports)
            try:
                session = RpcSession(device_with_key(key), grant, self._watchdog, self._timeout_s, self._key)
            except TvmpipeError as error:
                self._note(DeviceReport(key, address, "silent", str(error)), reports)
                return
            try:
                agent = AgentClient.of(session)
                if agent is None:
                    self._note(DeviceReport(key, address, "stock"), reports)
                else:
                    self._note(DeviceReport(key, address, "agent", facts=agent.facts), reports)
            except TvmpipeError as error:
                self._note(DeviceReport(key, address, "silent", str(error)), reports)
            finally:
                session.close()
        except DeviceUnavailableError:
            return  # somebody else was faster; it is shown as busy
        except TvmpipeError:
            return  # the tracker is gone; the next look says so
        finally:
            with self._lock:
                self._asking[key] -= 1

    def _await_free(self, tracker: Tracker, key: str) -> None:
        """A moment's patience: sessions are short. A request that is not granted would stay with the tracker."""
        deadline = time.monotonic() + self._timeout_s / 2
        while not any(status.key == key and status.free for status in tracker.status()):
            if time.monotonic() > deadline:
                raise DeviceUnavailableError(f"no device with key {key!r} is free")
            time.sleep(deadlines.TRACKER_POLL_S)

    def _note(self, report: DeviceReport, reports: dict[str, DeviceReport]) -> None:
        with self._lock:
            reports[report.address] = report
            if report.kind == "silent":
                self._silent[report.address] = report
            else:
                self._silent.pop(report.address, None)


def device_with_key(key: str) -> DeviceEntry:
    """What stands for a device of which only the key is known."""
    return DeviceEntry(name=key, key=key, target="", triple="", cpu="", identity="", threads=1, memory_bytes=None)
