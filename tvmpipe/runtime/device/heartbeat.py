"""How a stage host and the head know that the other is alive, what it has done, and what its clock says."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import zmq

from tvmpipe.runtime.device.stage_host import StageHost
from tvmpipe.runtime.device.status import Status
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.link_watch import LinkWatch

logger = logging.getLogger(__name__)

_SPANS_A_HEARTBEAT = 2000
_CLOCK_SAMPLES = 16


class Clock:
    """The head's wall clock as told by its answers: the offset of the exchange that took the least time.

    Assumes, as NTP does, that both ways take equally long.
    """

    def __init__(self) -> None:
        self._exchanges: deque[tuple[float, float]] = deque(maxlen=_CLOCK_SAMPLES)
        self._offset_s = 0.0

    def __call__(self) -> float:
        """Seconds of the head's clock, as closely as is known."""
        return time.time() + self._offset_s

    def learn(self, sent_s: float, head_s: float, received_s: float) -> None:
        """An exchange: sent and received by the clock here, answered by the head's."""
        self._exchanges.append((received_s - sent_s, head_s - (sent_s + received_s) / 2))
        self._offset_s = min(self._exchanges)[1]


class Heartbeat:
    """The thread that tells the head how its host is. The lease ends when the head has not answered for that long;
    then `host_stopped` is set.

    `report` is called about once a second with a status without spans, and with the last one.
    """

    def __init__(
        self,
        host: StageHost,
        clock: Clock,
        status: zmq.Socket[bytes],
        monitors: Mapping[str, zmq.Socket[bytes]],
        host_stopped: threading.Event,
        *,
        report: Callable[[Status], None] | None = None,
    ) -> None:
        self.lease_ended = False
        self._host = host
        self._clock = clock
        self._status = status
        self._watches = {peer: LinkWatch(monitor) for peer, monitor in monitors.items()}
        self._host_stopped = host_stopped
        self._report = report
        self._report_due = 0.0
        self._cut: frozenset[str] = frozenset()
        self._open = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tvmpipe-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; the sockets belong to the thread from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Send a last status and end."""
        self._stopped.set()
        self._thread.join(timeout=deadlines.JOIN_S)

    def _work(self) -> None:
        poller = zmq.Poller()
        poller.register(self._status, zmq.POLLIN)
        for watch in self._watches.values():
            poller.register(watch.monitor, zmq.POLLIN)
        heard = time.monotonic()
        due = 0.0
        while not self._stopped.is_set():
            now = time.monotonic()
            if now >= due:
                self._tell(last=False)
                due = now + deadlines.HEARTBEAT_S
            if dict(poller.poll(max(1, int((due - now) * 1e3)))) and self._hear():
                heard = time.monotonic()
            self._watch()
            if time.monotonic() - heard > self._host.spec.lease_s:
                logger.warning("the head %s has been silent for %g s", self._host.spec.owner, self._host.spec.lease_s)
                self.lease_ended = True
                self._host_stopped.set()
                self._tell_agent(self.status(last=True))
                return
        self._tell(last=True)

    def status(self, *, last: bool) -> Status:
        """How the host is now, without spans. For any thread."""
        import psutil

        host = self._host
        busy, failure = host.busy, host.failure
        return Status(
            session=host.spec.session,
            device=host.spec.device,
            sent_s=time.time(),
            counts={name: count.to_list() for name, count in host.counts.items()},
            busy=None if busy is None else (busy.stage, busy.batch, time.monotonic() - busy.since),
            cut=sorted(self._cut),
            failure=None if failure is None else (failure.stage, failure.batch, failure.message),
            refused=host.refused,
            memory_bytes=psutil.Process().memory_info().rss,
            last=last,
            unlinked=sorted(peer for peer, watch in self._watches.items() if not watch.met),
        )

    def _tell(self, *, last: bool) -> None:
        status = self.status(last=last)
        if last or time.monotonic() >= self._report_due:
            self._tell_agent(status)
        status.spans = self._host.spans.take(1_000_000 if last else _SPANS_A_HEARTBEAT)
        try:
            self._status.send(status.model_dump_json().encode(), zmq.NOBLOCK)
        except zmq.Again:
            logger.debug("nobody takes the status of %s", status.device)

    def _tell_agent(self, status: Status) -> None:
        self._report_due = time.monotonic() + deadlines.REPORT_S
        if self._report is not None:
            self._report(status)

    def _hear(self) -> bool:
        heard = False
        while True:
            try:
                answer = json.loads(self._status.recv(zmq.NOBLOCK))
                self._clock.learn(float(answer["sent_s"]), float(answer["head_s"]), time.time())
                if answer["open"] and not self._open:
                    self._watch()
                    for watch in self._watches.values():
                        watch.expect()
                    self._open = True
                heard = True
            except zmq.Again:
                return heard
            except (ValueError, KeyError, TypeError):
                logger.warning("the head sent something that is no answer to a status")

    def _watch(self) -> None:
        """Note links that broke.

        Until all devices are ready a peer may still serve an earlier opening at its address, so that only what breaks
        later counts; this host knows that they are once the head has said so.
        """
        for peer, watch in self._watches.items():
            if watch.broken() and self._open:
                self._cut |= {peer}
