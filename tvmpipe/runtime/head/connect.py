"""From a bundle to a running pipeline: how many samples travel together, and how many at once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from tvmpipe.bundle import Bundle, load
from tvmpipe.errors import InputError
from tvmpipe.manifest import Files, Manifest, PlanEntry
from tvmpipe.runtime.head.delivery.progress import DeviceProgress
from tvmpipe.runtime.head.deployer import Deployer
from tvmpipe.runtime.head.options import ConnectOptions, Limits
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.runtime.head.replanner import Replanner
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.discover import AUTO, find_tracker

logger = logging.getLogger(__name__)

_MESSAGE_S = 60e-6  # what receiving a batch, handing it on and sending it costs a host (`benchmarks.executor`)
_MESSAGE_SHARE = 0.04  # of a period
_LARGEST_BATCH = 16


def connect(
    bundle: Bundle | str | Path,
    tracker: str,
    *,
    inflight: int | None = None,
    batch: int | None = None,
    failover: bool = False,
    wait_s: float = deadlines.WAIT_S,
    timeout_s: float = deadlines.STAGE_S,
    connect_timeout_s: float = deadlines.CONNECT_S,
    start_timeout_s: float = deadlines.START_S,
    recover_s: float | None = None,
    cluster_key: str | Path | None = None,
    trace: bool = False,
    event_log: str | Path | None = None,
    on_delivery: Callable[[Sequence[DeviceProgress]], None] | None = None,
    replanner: Replanner | None = None,
    horizon_s: float = deadlines.HORIZON_S,
    on_decision: Callable[[str], None] = lambda sentence: None,
) -> Pipeline:
    """Request a bundle's devices from a tracker ("host:port"), have the stages hosted, return the pipeline.

    "auto" finds the tracker of the cluster key on the local network, and needs `tvmpipe[discovery]`.

    `bundle` is one, or the path of one. `inflight` samples at most are in the pipeline at once, by default what the
    plan says keeps every device busy; `batch` samples travel together, by default more than one where periods are so
    short that each message would count (a sample that comes alone never waits for others). `wait_s` is how long to
    wait for a device that somebody else has, `timeout_s` how long one stage may take, `connect_timeout_s` how long
    finding a device may, and `start_timeout_s` how long one may start Python and import TVM, and as long again load
    its stages. With `failover` the loss of a device moves the work to those that remain, where the bundle has a plan
    for that; otherwise, and without `failover`, the device is waited for. Nothing may run for `recover_s` at most, by
    default 60 s with failover and 10 s without; 0 without failover makes every loss final.
    `cluster_key` is the file that the agents have too, needed off loopback. `trace` has devices note what they
    do when; `event_log` is a file for what the executor decided on, from which a run can be replayed. `on_delivery` is
    called a few times a second, in another thread, while devices receive files, with how far each has got.

    With a `replanner` (`tvmpipe.Replanner`) the pipeline is elastic: where the bundle has no plan for the devices that
    are left one is made, and devices join and leave with `Pipeline.add_device` and `remove_device`. A change from what
    runs to another plan is made where it pays within `horizon_s`; `on_decision` hears a sentence on each.

    Raises BundleError, TrackerError, DeviceUnavailableError, DeviceError, InputError.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load(bundle)
    options = ConnectOptions(
        inflight=inflight,
        batch=batch,
        failover=failover,
        limits=Limits(connect_timeout_s, wait_s, timeout_s, start_timeout_s, recover_s),
        cluster_key=None if cluster_key is None else Path(cluster_key),
        trace=trace,
        event_log=None if event_log is None else Path(event_log),
        on_delivery=on_delivery,
        horizon_s=horizon_s,
    )
    return open_pipeline(loaded.manifest, loaded, tracker, options, replanner, on_decision)


def open_pipeline(
    manifest: Manifest,
    files: Files,
    tracker: str,
    options: ConnectOptions,
    replanner: Replanner | None = None,
    on_decision: Callable[[str], None] = lambda sentence: None,
) -> Pipeline:
    """As `connect`, for a manifest and the files that it lists."""
    if replanner is not None:
        options = replace(options, failover=True, elastic=True)
    elif options.failover and len(manifest.plans) == 1:
        logger.warning(
            "this bundle has no plan without one of its devices (`compile --failover` makes those that are possible): "
            "a device that is lost is waited for, at most %g s",
            options.recover_s,
        )
    try:
        return _open_pipeline(manifest, files, tracker, options, replanner, on_decision)
    except BaseException:
        if replanner is not None:
            replanner.close()
        raise


def _open_pipeline(
    manifest: Manifest,
    files: Files,
    tracker: str,
    options: ConnectOptions,
    replanner: Replanner | None,
    on_decision: Callable[[str], None],
) -> Pipeline:
    key = None if options.cluster_key is None else ClusterKey.load(options.cluster_key)
    if tracker == AUTO:
        tracker = find_tracker(key).address
    samples, settings = plan_settings(manifest.plan, options)
    return Pipeline(
        manifest,
        Deployer(manifest, files, tracker, key, options),
        inflight=samples,
        settings=settings,
        key=key,
        log=None if options.event_log is None else _open_log(options.event_log),
        replanner=replanner,
        on_decision=on_decision,
    )


def plan_settings(plan: PlanEntry, options: ConnectOptions) -> tuple[int, Settings]:
    """How many samples may be in the pipeline at once, and how the executor behaves."""
    with_devices = max(1, plan.inflight - plan.on_links)  # these have batches; links delay large ones no longer
    batch = options.batch
    if batch is None:
        batch = default_batch(plan.predicted.period_s)
        if options.inflight is not None:  # so few batches under way must still keep every device busy
            batch = max(1, min(batch, (options.inflight - plan.on_links) // with_devices))
    samples = options.inflight or with_devices * batch + plan.on_links
    return samples, Settings(
        batch=batch,
        max_batches=max(1, math.ceil(samples / batch)),
        failover=options.failover,
        timeout_s=options.limits.timeout_s,
        recover_s=options.recover_s,
        elastic=options.elastic,
        horizon_s=options.horizon_s,
        widens=options.elastic and options.inflight is None,
    )


def default_batch(period_s: float) -> int:
    """Samples that travel together so that a host spends little of each period on messages, however short it is."""
    if period_s * _MESSAGE_SHARE * _LARGEST_BATCH <= _MESSAGE_S:
        return _LARGEST_BATCH
    return max(1, math.ceil(_MESSAGE_S / (_MESSAGE_SHARE * period_s)))


def _open_log(path: Path) -> TextIO:
    """The file that the head writes events to, and closes. Raises InputError."""
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"event log {path} cannot be written: {error.strerror}") from None
