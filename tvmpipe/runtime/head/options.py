"""What a user may ask of a pipeline: how long things may take, how much is under way, what happens on a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tvmpipe.runtime.head.delivery.progress import DeviceProgress
from tvmpipe.runtime.transport import deadlines


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    Attributes: `connect_s` finding a device, and its reaching this machine; `wait_s` for a device that another head
    has; `timeout_s` one stage for a batch, and one call to a device; `start_s` a device to start Python and import
    TVM, and as long again, besides the time to read the weights, to load its stages; `recover_s` the longest that
    nothing may run after a loss, None: 60 with failover and 10 without.
    """

    connect_s: float = deadlines.CONNECT_S
    wait_s: float = deadlines.WAIT_S
    timeout_s: float = deadlines.STAGE_S
    start_s: float = deadlines.START_S
    recover_s: float | None = None


@dataclass(frozen=True)
class ConnectOptions:
    """How a bundle is put on its devices; `connect` says what each of these means.

    Attributes: `inflight` samples in the pipeline at once, None: what keeps every device busy; `batch` samples that
    travel together, None: as many as the period asks for; `failover` whether to go on without a lost device;
    `cluster_key` the key file of the cluster; `trace` whether devices note what they do when; `event_log` a file for
    the events that the executor decided on; `on_delivery` is told, a few times a second, how far devices have got with
    files that they lacked; `elastic` whether plans are made that the bundle has not, and `horizon_s`
    within which a change to one is to pay.
    """

    inflight: int | None = None
    batch: int | None = None
    failover: bool = False
    limits: Limits = field(default_factory=Limits)
    cluster_key: Path | None = None
    trace: bool = False
    event_log: Path | None = None
    on_delivery: Callable[[Sequence[DeviceProgress]], None] | None = None
    elastic: bool = False
    horizon_s: float = deadlines.HORIZON_S

    @property
    def recover_s(self) -> float:
        """`limits.recover_s`, or what stands for None."""
        if self.limits.recover_s is not None:
            return self.limits.recover_s
        return deadlines.RECOVER_S if self.failover else deadlines.RECONNECT_DEVICE_S
