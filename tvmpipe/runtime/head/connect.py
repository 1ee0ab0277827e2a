"""From a bundle to a running pipeline: how many samples travel together, and how many at once."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tvmpipe.errors import InputError
from tvmpipe.runtime.head.deployer import Limits
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.runtime.head.state_machine import Settings
from tvmpipe.runtime.security.keys import ClusterKey

if TYPE_CHECKING:
    from tvmpipe.bundle import Bundle

logger = logging.getLogger(__name__)

RECOVER_S = 60.0  # with failover: how long nothing may run before the pipeline fails
PATIENCE_S = 10.0  # without: a wireless link that drops, or a stage host that starts again
_MESSAGE_S = 60e-6  # what receiving a batch, handing it on and sending it costs a host (`benchmarks.executor`)
_MESSAGE_SHARE = 0.04  # of a period
_LARGEST_BATCH = 16


def default_batch(period_s: float) -> int:
    """Samples that travel together so that a host spends little of each period on messages, however short it is."""
    wanted = _MESSAGE_S / (_MESSAGE_SHARE * period_s) if period_s > 0 else math.inf
    return int(min(_LARGEST_BATCH, max(1, math.ceil(wanted))))


def connect(
    bundle: Bundle,
    tracker: str,
    *,
    inflight: int | None = None,
    batch: int | None = None,
    failover: bool = False,
    wait_s: float = 10.0,
    timeout_s: float = 60.0,
    connect_timeout_s: float = 10.0,
    start_timeout_s: float = 120.0,
    recover_s: float | None = None,
    cluster_key: str | Path | None = None,
    trace: bool = False,
    event_log: str | Path | None = None,
) -> Pipeline:
    """Put a bundle on its devices; see `Bundle.connect`."""
    if recover_s is None:
        recover_s = RECOVER_S if failover else PATIENCE_S
    if failover and len(bundle.manifest.plans) == 1:
        logger.warning(
            "this bundle has no plan without one of its devices (`compile --failover` makes those that are possible): "
            "a device that is lost is waited for, at most %g s",
            recover_s,
        )
    plan = bundle.manifest.plan
    with_devices = max(1, plan.inflight - plan.on_links)  # these have batches; links delay large ones no longer
    if batch is None:
        batch = default_batch(plan.predicted.period_s)
        if inflight is not None:  # so few batches under way must still keep every device busy
            batch = max(1, min(batch, (inflight - plan.on_links) // with_devices))
    samples = inflight or with_devices * batch + plan.on_links
    settings = Settings(
        batch=batch,
        max_batches=max(1, math.ceil(samples / batch)),
        failover=failover,
        timeout_s=timeout_s,
        recover_s=recover_s,
    )
    key = None if cluster_key is None else ClusterKey.load(Path(cluster_key))
    log = None if event_log is None else _open_log(Path(event_log))
    return Pipeline(
        bundle,
        tracker,
        inflight=samples,
        settings=settings,
        limits=Limits(connect_timeout_s, wait_s, timeout_s, start_timeout_s),
        key=key,
        trace=trace,
        log=log,
    )


def _open_log(path: Path) -> TextIO:
    """The file that the head writes events to, and closes. Raises InputError."""
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"event log {path} cannot be written: {error.strerror}") from None
