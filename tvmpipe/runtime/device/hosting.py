"""A stage host with its sockets and its heartbeat."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from tvmpipe.errors import DeviceError
from tvmpipe.runtime.device.heartbeat import Clock, Heartbeat
from tvmpipe.runtime.device.spec import HostSpec
from tvmpipe.runtime.device.stage_host import StageFailure, StageHost, Stages
from tvmpipe.runtime.device.status import Status
from tvmpipe.runtime.transport.address import leads_back, parse_address
from tvmpipe.runtime.transport.queues import queue_length
from tvmpipe.runtime.transport.sender import SocketSender, WrapSender
from tvmpipe.runtime.transport.sockets import Sockets

_OVERHEAD_BYTES = 65536  # what a message has besides tensors: header and table


class HostedSession:
    """Stages being hosted at `address`; its heartbeat begins at once. `sockets` must be this thread's own.

    What leaves goes through the sender that `wrap_sender` makes. Hosting ends soon after `stopped` is set. `report` is
    called in another thread about once a second, and at the end, with what has been done so far.

    Raises InputError when the address is taken, DeviceError when a peer's address leads here.
    """

    def __init__(
        self,
        spec: HostSpec,
        stages: Stages,
        sockets: Sockets,
        address: tuple[str, int],
        stopped: threading.Event,
        *,
        wrap_sender: WrapSender = lambda sender: sender,
        report: Callable[[Status], None] | None = None,
    ) -> None:
        for peer in spec.peers:
            if leads_back(parse_address(peer.address, "link"), address):
                raise DeviceError(
                    f"device {peer.name} is said to be at {peer.address}, which to {spec.device} is itself: start "
                    f"the agent of {peer.name} with --host and an address of its machine that the others reach"
                )
        # The head lets in no more batches than `max_batches`, so that who fills a queue is nobody of this pipeline.
        messages: Counter[int] = Counter()  # of a batch at most, by its bucket
        for stage in spec.stages:
            messages[stage.bucket] += len(stage.inputs)
        queue = queue_length(spec.max_batches, max(messages.values(), default=0))
        inbox, _ = sockets.pull(*address, queue=queue, max_frame_bytes=spec.limit_bytes + _OVERHEAD_BYTES)
        pushes = {
            peer.name: sockets.push(
                parse_address(peer.address, "link"),
                queue=0,
                bandwidth_bps=peer.bandwidth_bps,
                latency_s=peer.latency_s,
            )
            for peer in spec.peers
        }
        sender = wrap_sender(SocketSender({name: socket for name, (socket, _) in pushes.items()}))
        monitors = {name: monitor for name, (_, monitor) in pushes.items()}
        clock = Clock()
        self.stopped = stopped
        self.host = StageHost(spec, stages, inbox, sender, stopped=stopped, clock=clock)
        status = sockets.dealer(parse_address(spec.status_address, "head"))
        self._heartbeat = Heartbeat(self.host, clock, status, monitors, stopped, report=report)
        self._heartbeat.start()

    @property
    def lease_ended(self) -> bool:
        """Whether it ended because the head was silent."""
        return self._heartbeat.lease_ended

    @property
    def status(self) -> Status:
        """What has been done so far, for any thread that ends this process."""
        return self._heartbeat.status(last=True)

    def serve(self) -> StageFailure | None:
        """Host the stages until `stopped` is set. Returns what ended it, if that was a stage."""
        try:
            self.host.serve()
        finally:
            self._heartbeat.stop()
        return self.host.failure
