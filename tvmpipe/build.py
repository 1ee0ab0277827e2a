"""The Python build API."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvmpipe.bundle import Bundle
    from tvmpipe.manifest import Encoding
    from tvmpipe.passes.frontend.inputs.open_dimensions import Extent
    from tvmpipe.passes.monitor import Progress
    from tvmpipe.passes.objectives.base import Objective
    from tvmpipe.targets.cost.model import CostModel
    from tvmpipe.targets.description.cluster import Cluster


def build(
    model: Any,
    cluster: str | Path | Cluster,
    *,
    shapes: Mapping[str, Sequence[Extent]] | None = None,
    dims: Mapping[str, int] | None = None,
    values: Mapping[str, Any] | None = None,
    buckets: Mapping[str, Collection[int]] | None = None,
    pads: Mapping[str, float] | None = None,
    objective: str | Objective = "throughput",
    time_limit_s: float = 60.0,
    pins: Mapping[str, str] | None = None,
    plan: str | Path | None = None,
    dump: str | Path | None = None,
    records: str | Path | None = None,
    tune: int = 0,
    tracker: str | None = None,
    cluster_key: str | Path | None = None,
    replicate: bool = False,
    failover: bool = False,
    elastic: bool = False,
    compress: Encoding = "none",
    robust: bool = False,
    profiles: str | Path | None = None,
    cost_model: CostModel | None = None,
    progress: Progress | None = None,
    fallback: bool = True,
    states: Mapping[str, str] | None = None,
    stateful: bool = True,
    sequences: int = 1,
    context: int | None = None,
    prompt: int | None = None,
    generate: int | None = None,
) -> Bundle:
    """Compile an ONNX model for the devices of a cluster.

    `model` is a path or an `onnx.ModelProto`, `cluster` a path to `cluster.toml` or a `Cluster`. `shapes` fixes
    inputs that the file leaves open, `dims` its open dimensions, by their names and in all inputs; `values` makes
    constants of inputs, of numbers, lists or arrays. Where a dimension
    has several extents (`shapes={"ids": [1, {16, 64}]}`, or by name: `buckets={"sequence": [16, 64]}`, also for names
    that stand in `shapes`), the bundle runs samples of each; `pads` is what smaller samples are padded with, by input.
    `time_limit_s` bounds the search for a placement, not the compilation; the placements for losses together take as
    long again. `pins` maps names of primitives (shell patterns) to devices; `plan` is an edited `plan.yaml` to follow
    instead of searching. `dump` is a directory for the TVMScript after each pass. `records` is a folder of measured
    schedules that are used where they fit; with `tune`, up to so many schedules of each hot primitive are measured
    first, on the plan's devices behind `tracker` ("host:port" or "auto"; off loopback with the file `cluster_key`), and
    those that beat tvmpipe's own are added to it.
    Costs are those of `cost_model`; by default of the measurements that come with tvmpipe and those in the folder
    `profiles`, which is the user's own unless it is given (`tvmpipe profile` writes there). Links that the cluster file
    says nothing of are as they were measured, where that folder has them.
    With `replicate`, devices may take samples in turn where that lowers the period.
    With `failover` the bundle also holds a plan for the loss of each device; what no plan survives is a note in the
    report. With `elastic` it keeps what other plans can be made of where it runs, for several losses and for devices
    that join (`connect` with a `replanner`).
    With `compress` "fp16" or "int8", links that are slower than every device carry float32 tensors so.
    With `fallback`, ONNX Runtime runs the nodes that cannot be compiled, in stages of their own on devices that have
    it; the report says which and why. Without, a model that has such nodes is refused.
    Outputs that are inputs of the next step (`states`, output name -> input name, and, with `stateful`, those that
    names like `state`/`stateN` or `past_*`/`present_*` tell) are states of sequences: they stay on the devices, of so
    many `sequences` at once, and are no inputs and outputs any more (`Pipeline.sequence`). What grows from step to
    step, a cache of keys and values, has room for `context` elements. Such a model is planned for sequences of `prompt`
    elements at once, in long steps, and then `generate` one by one; by default 512 and 128, less where there is less
    room.
    With `robust` the plan is the best one where every cost is at the upper end of its interval, so that devices whose
    costs are not known well get less; its figures are still those that are expected.

    Raises ModelError, ClusterError, PlanError for bad input and InfeasibleError when nothing fits.
    """
    from tvmpipe.passes import driver
    from tvmpipe.passes.frontend.options import ImportOptions
    from tvmpipe.passes.monitor import Monitor
    from tvmpipe.passes.objectives import find_objective
    from tvmpipe.passes.options import BuildOptions
    from tvmpipe.runtime.security.keys import ClusterKey
    from tvmpipe.runtime.transport.discover import AUTO, find_tracker
    from tvmpipe.targets.description.cluster import Cluster, load_cluster

    key = None if cluster_key is None else ClusterKey.load(Path(cluster_key))
    if tracker == AUTO:
        tracker = find_tracker(key).address
    options = BuildOptions(
        objective=find_objective(objective) if isinstance(objective, str) else objective,
        time_limit_s=time_limit_s,
        pins=pins or {},
        plan=None if plan is None else Path(plan),
        replicate=replicate,
        failover=failover,
        elastic=elastic,
        compress=compress,
        robust=robust,
        profiles=None if profiles is None else Path(profiles),
        cost_model=cost_model,
        records=None if records is None else Path(records),
        tune=tune,
        tracker=tracker,
        cluster_key=key,
        prompt=prompt,
        generate=generate,
    )
    devices = cluster if isinstance(cluster, Cluster) else load_cluster(cluster)
    monitor = Monitor(driver.COMPILE, progress, None if dump is None else Path(dump))
    importing = ImportOptions(
        shapes or {},
        dims or {},
        values or {},
        buckets or {},
        pads or {},
        fallback,
        states or {},
        stateful,
        sequences,
        context,
    )
    fused = driver.front(model, importing, monitor)
    return driver.compile(driver.plan(fused, devices, options, monitor), monitor).bundle
