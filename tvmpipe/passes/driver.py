"""The passes in their order, the loops over them, and what is known after each phase. Nothing else knows either.

::

    fused = front("model.onnx")
    planned = plan(fused, load_cluster("cluster.toml"), BuildOptions(failover=True))
    bundle = compile(planned).bundle
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tvmpipe.bundle import Bundle
from tvmpipe.errors import InfeasibleError, ModelError, PlanError, UnsupportedModelError
from tvmpipe.passes.backend.alone import refused_nodes as refused_primitives
from tvmpipe.passes.backend.elastic_file import Kept, check_keepable, to_json
from tvmpipe.passes.backend.lower import Find, NotCompiledError, StageLibrary, allocated_bytes, lower
from tvmpipe.passes.backend.memory import held_bytes, with_compiled_loads
from tvmpipe.passes.backend.partition import CutPlan, partition
from tvmpipe.passes.backend.tune import tune
from tvmpipe.passes.backend.write_bundle import write_bundle
from tvmpipe.passes.frontend.import_onnx import import_buckets
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.graph.bucket import NO_BUCKETS, Bucket, Buckets
from tvmpipe.passes.graph.primitive_features import works_of
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.replicas import Placement
from tvmpipe.passes.monitor import Monitor
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.compression import compress
from tvmpipe.passes.planning.cost_table import CostTable, price_table
from tvmpipe.passes.planning.default_cost import default_cost
from tvmpipe.passes.planning.evaluate import Price, price_stages
from tvmpipe.passes.planning.failover import Spare, spare_plans
from tvmpipe.passes.planning.fallback_times import with_fallback_times
from tvmpipe.passes.planning.follow_nodes import price_bucket
from tvmpipe.passes.planning.place import follow, place, unless_better
from tvmpipe.passes.planning.plan import Plan, explain_missing, left_nodes, read_left, read_placement
from tvmpipe.passes.planning.step_mix import StepMix, mixed, step_mix, with_traffic
from tvmpipe.passes.reports import explain as explanations
from tvmpipe.passes.reports.compare import compare
from tvmpipe.passes.reports.report import report
from tvmpipe.passes.rewrite.alone import refused_nodes as refused_expressions
from tvmpipe.passes.rewrite.fuse import fuse
from tvmpipe.targets.cost.model import CostModel
from tvmpipe.targets.description.cluster import Cluster
from tvmpipe.targets.store.link_times import with_measured_links
from tvmpipe.targets.store.profile_store import default_store

logger = logging.getLogger(__name__)

FRONT = ("import", "fuse")
PLAN = (*FRONT, "cost", "place", "compress", "failover")
COMPILE = (*PLAN, "partition", "tune", "lower", "fit", "bundle")

_FITTING_ROUNDS = 3


@dataclass(frozen=True)
class Fused:
    """A model as fused primitives: `module` is a `tvm.IRModule`, `notes` are sentences for the report.

    `values` are those of inputs of the file that became constants. Where the model has open dimensions this is its
    largest bucket, and `buckets` has the others. `source` and `importing` are what `front` was given; `left` are nodes
    that TVM imports and does not compile: label -> why.
    """

    source: Any
    importing: ImportOptions
    left: Mapping[str, str]
    signature: Signature
    module: Any
    graph: PrimitiveGraph
    notes: tuple[str, ...]
    values: Mapping[str, NDArray[Any]]
    buckets: Buckets = field(default=NO_BUCKETS, kw_only=True)

    @property
    def graphs(self) -> tuple[PrimitiveGraph, ...]:
        """Of each bucket."""
        return (self.graph, *(bucket.graph for bucket in self.buckets.others))


@dataclass(frozen=True)
class Priced(Fused):
    """Its primitives priced on a cluster, whose links are as they were measured where its file does not say.

    `given` is the cluster as its file has it, `bucket_costs` are of one step or sample of each bucket, and `costs` what
    is planned by: those of the largest bucket, or of the steps that `mix` says.
    """

    given: Cluster
    cluster: Cluster
    options: BuildOptions
    cost_model: CostModel
    costs: CostTable
    bucket_costs: tuple[CostTable, ...] = field(kw_only=True)
    mix: StepMix | None = field(default=None, kw_only=True)

    @property
    def one_graph(self) -> PrimitiveGraph:
        """The largest bucket's graph for one step, whatever plans are for."""
        return replace(self.graph, traffic={})


@dataclass(frozen=True)
class Planned(Priced):
    """Placed, with plans for the loss of devices where they were asked for. `priced` is what it was planned from."""

    priced: Priced
    plan: Plan
    spares: tuple[Spare, ...]

    def report(self, activation_bytes: Sequence[int] | None = None) -> dict[str, Any]:
        """The facts of `report.json`; `activation_bytes` is what each stage takes once it is compiled, None before."""
        return report(
            self.signature,
            self.graph,
            self.costs,
            self.cluster,
            self.plan,
            self.spares,
            self.notes,
            activation_bytes,
            buckets=self.buckets,
            bucket_prices=(self._largest_price(), *self.bucket_prices(self.plan)) if self.buckets.others else (),
            mix=self.mix,
        )

    def bucket_prices(self, plan: Plan) -> list[Price]:
        """The other buckets where `plan` has the largest."""
        return [
            price_bucket(bucket.graph, costs, self.graph, plan, self.cluster)
            for bucket, costs in zip(self.buckets.others, self.bucket_costs[1:], strict=True)
        ]

    def _largest_price(self) -> Price:
        """The largest bucket by itself."""
        encodings = {(link.sender, link.receiver): link.encoding for link in self.plan.links}
        return price_stages(self.one_graph, self.bucket_costs[0], self.cluster, self.plan.stages, encodings)


@dataclass(frozen=True)
class Compiled(Planned):
    """Compiled and written. Loads of plans have the memory that compiled stages take."""

    bundle: Bundle


def front(
    source: Any,
    options: ImportOptions | None = None,
    monitor: Monitor | None = None,
    left: Mapping[str, str] | None = None,
) -> Fused:
    """Import and fuse a model: a path or an `onnx.ModelProto`.

    Nodes in `left` (label -> why) are left to ONNX Runtime, as are those that TVM cannot import or lower.

    Raises ModelError, UnsupportedModelError and InputError.
    """
    options, monitor, left = options or ImportOptions(), monitor or Monitor(FRONT), left or {}
    monitor.begin("import")
    found = import_buckets(source, options, left)
    monitor.dump({"": found.buckets[0].module})
    monitor.begin("fuse", f"{len(found.buckets)} buckets" if len(found.buckets) > 1 else "")
    number = itertools.count()

    def seen(rewrite: str, made: Any) -> None:
        monitor.dump({f"{next(number):02d}-{rewrite}": made})

    fused: list[tuple[Any, PrimitiveGraph]] = []
    for bucket in found.buckets:
        try:
            fused.append(fuse(bucket.module, bucket.signature, None if fused else seen, bucket.groups))
        except UnsupportedModelError:
            more = refused_expressions(bucket.module)
            if not more.keys() - left.keys():
                raise
            return front(source, options, monitor.within(), {**left, **more})
    imported, *others = found.buckets
    (module, graph), *rest = fused
    monitor.dump({"": module})
    notes = tuple(dict.fromkeys(note for one in found.buckets for note in one.notes))
    opened = NO_BUCKETS
    if others:
        buckets = tuple(
            Bucket(one.extents, one.exact, one.signature, *made) for one, made in zip(others, rest, strict=True)
        )
        opened = Buckets(found.axes, found.pads, imported.extents, imported.exact, buckets)
        for note in opened.notes:
            logger.warning(note)
        notes = (*notes, *opened.notes)
    return Fused(source, options, left, imported.signature, module, graph, notes, imported.values, buckets=opened)


def plan(
    fused: Fused, cluster: Cluster, options: BuildOptions | None = None, monitor: Monitor | None = None
) -> Planned:
    """Price and place a model on the devices of a cluster.

    Raises InfeasibleError when nothing fits, PlanError for a wrong pin or plan file.
    """
    options, monitor = options or BuildOptions(), monitor or Monitor(PLAN)
    if options.elastic:
        check_keepable(options)
    folder = options.profiles or default_store()
    given = cluster
    cluster, notes = with_measured_links(given, folder)
    model = options.cost_model or default_cost(folder, cluster.targets)
    monitor.begin("cost")
    if options.plan is not None:
        fused = _as_planned(fused, options.plan, monitor)

    works = [
        with_fallback_times(works_of(graph, module), graph, folder)
        for graph, module in ((fused.graph, fused.module), *((one.graph, one.module) for one in fused.buckets.others))
    ]
    (costs, said), *others = (price_table(mine, cluster, model) for mine in works)
    tables = (costs, *(table for table, _ in others))
    mix = step_mix(fused.signature, fused.buckets, tables, options.prompt, options.generate)
    graph = fused.graph if mix is None else with_traffic(fused.graph, mix)
    more = () if mix is None else (mix.sentence(),)
    priced = Priced(
        **{**vars(fused), "graph": graph, "notes": (*notes, *fused.notes, *said, *more)},
        given=given,
        cluster=cluster,
        options=options,
        cost_model=model,
        costs=costs if mix is None else mixed(fused.graphs, tables, mix),
        bucket_costs=tables,
        mix=mix,
    )
    return _plan(priced, cluster, monitor)


def _as_planned(fused: Fused, file: Path, monitor: Monitor) -> Fused:
    """With those nodes for ONNX Runtime that a plan file leaves to it."""
    here = left_nodes(fused.graph)
    more = {label: why for label, why in read_left(file).items() if label not in here}
    if not more:
        return fused
    again = front(fused.source, fused.importing, monitor.within(), {**fused.left, **more})
    unknown = next((label for label in more if label not in left_nodes(again.graph)), None)
    if unknown is not None:
        raise PlanError(f"plan file {file} leaves {unknown!r} to ONNX Runtime, which is no ONNX node of this model")
    return again


def compile(planned: Planned, monitor: Monitor | None = None) -> Compiled:
    """Cut the plans into stages, compile these, and write a bundle. Plans again where compiled stages do not fit, and
    imports and plans again without what TVM cannot compile, which is left to ONNX Runtime.

    Raises UnsupportedModelError where that cannot be, InfeasibleError when compiled stages take more memory than
    there is, InputError and DeviceError where tuning cannot be done.
    """
    monitor = monitor or Monitor(COMPILE)
    made = _compiled(planned, monitor)
    monitor.begin("bundle")
    planned = made.planned
    allocated = allocated_bytes(made.libraries)
    facts = planned.report(
        [
            max(held_bytes(planned.graph, stage.shape, allocated[name]) for name in stage.hosted.values())
            for stage in made.cuts[0].stages
        ]
    )

    def keep(libraries: Mapping[str, tuple[str, int]]) -> str:
        one = planned.one_graph
        return to_json(
            planned.signature,
            planned.module,
            one,
            planned.buckets,
            planned.left,
            planned.given,
            planned.options,
            libraries,
        )

    bundle = write_bundle(
        planned.signature,
        (planned.one_graph, *planned.graphs[1:]),
        planned.bucket_costs,
        planned.buckets,
        planned.cluster,
        made.cuts,
        made.libraries,
        facts,
        tuned=planned.options.records is not None,
        keep=keep if planned.options.elastic else None,
    )
    monitor.end()
    return Compiled(**vars(planned), bundle=bundle)


def restore(kept: Kept) -> Fused:
    """The fused model that an elastic bundle keeps; what cannot be compiled of it cannot be left to ONNX Runtime."""
    return Fused(
        None, ImportOptions(), kept.left, kept.signature, kept.module, kept.graph, (), {}, buckets=kept.buckets
    )


def compile_plan(planned: Planned, find: Find, prefix: str, monitor: Monitor | None = None) -> Made:
    """Cut and compile a plan but for what `find` has; names of its stages begin with `prefix`. As `compile`, it plans
    again where compiled stages do not fit.

    Raises UnsupportedModelError and InfeasibleError.
    """
    monitor = monitor or Monitor(COMPILE)
    how = _How(find, prefix)
    return _fit(_compile(planned, planned.cluster, monitor, how), monitor, how)


def explain(planned: Planned, time_limit_s: float, notice: explanations.Notice | None = None) -> dict[str, Any]:
    """Why the plan is as it is and how right its costs are, in plain JSON types; what-ifs search `time_limit_s`."""

    def plan_again(cluster: Cluster, options: BuildOptions) -> Plan:
        return _replan(planned.priced, cluster, options, planned.plan.placement, "known")[0]

    options = replace(planned.options, time_limit_s=time_limit_s)
    why = explanations.explain(planned.graph, planned.costs, planned.cluster, planned.plan, options, plan_again, notice)
    measured = compare(planned.one_graph, planned.bucket_costs[0], planned.cluster, planned.plan, planned.cost_model)
    return {**why, "measured": measured}


def _plan(priced: Priced, cluster: Cluster, monitor: Monitor) -> Planned:
    """Place, compress and plan for losses on `cluster`, which is the priced one, perhaps with less memory."""
    graph, costs, options = priced.graph, priced.costs, priced.options
    monitor.begin("place")
    if options.plan is None:
        found = place(graph, costs, cluster, options, monitor.tell)
    else:
        placement = read_placement(options.plan, graph, cluster, priced.signature.sha256)
        found = follow(placement, graph, costs, cluster, options)
    monitor.begin("compress")
    found, said = compress(graph, costs, cluster, found, options.compress)
    notes = (*priced.notes, *said)
    monitor.begin("failover", f"plans without each of {', '.join(found.loads)}" if options.failover else "")

    def plan_without(lost: str, seconds: float, known: Placement | None) -> tuple[Plan, list[str]]:
        pins = {pattern: device for pattern, device in options.pins.items() if device != lost}
        asked = replace(options, pins=pins, time_limit_s=seconds)
        after, more = _replan(priced, cluster.without(lost), asked, known, "fewer turns")
        return after, [note for note in more if note not in notes]

    spares: tuple[Spare, ...] = ()
    if options.failover:
        spares, said = spare_plans(found, len(cluster.devices), options.time_limit_s, plan_without)
        notes = (*notes, *said)
    return Planned(**{**vars(priced), "notes": notes}, priced=priced, plan=found, spares=spares)


def _replan(
    priced: Priced, cluster: Cluster, options: BuildOptions, known: Placement | None, origin: str
) -> tuple[Plan, list[str]]:
    """The plan for another cluster and other options, and sentences about it alone; a plan file does not hold.

    `known` is a placement that can run there too; where the search finds nothing better it is the plan, of that
    `origin`. Raises InfeasibleError.
    """
    (costs, notes), *others = (price_table(table.works, cluster, priced.cost_model) for table in priced.bucket_costs)
    if priced.mix is not None:
        costs = mixed(priced.graphs, [costs, *(table for table, _ in others)], priced.mix)
    found = place(priced.graph, costs, cluster, options)
    if known is not None:
        found = unless_better(found, known, origin, priced.graph, costs, cluster)
    found, said = compress(priced.graph, costs, cluster, found, options.compress)
    return found, [*notes, *said]


@dataclass(frozen=True)
class Made:
    """Plans cut and compiled. The first of `cuts` is the plan to start with, the others those for losses."""

    planned: Planned
    cuts: tuple[CutPlan, ...]
    libraries: tuple[StageLibrary, ...]


@dataclass(frozen=True)
class _How:
    """What has been compiled before, and how names of stages begin."""

    find: Find | None = None
    prefix: str = ""


def _compile(planned: Planned, cluster: Cluster, monitor: Monitor, how: _How = _How()) -> Made:
    monitor.begin("partition")
    cuts = (
        _cut(planned, planned.plan, prefix=how.prefix),
        *(_cut(planned, spare.plan, spare.lost) for spare in planned.spares),
    )
    stages = [stage for cut in cuts for stage in cut.all_stages]
    monitor.dump({stage.name: stage.module for stage in stages})
    monitor.begin("tune")
    tune(cuts[0].all_stages, cluster, planned.options)
    plans = f" of {len(cuts)} plans" if len(cuts) > 1 else ""
    monitor.begin("lower", f"{len(stages)} stages{plans}")
    libraries = lower(stages, planned.cluster, planned.options.records, how.find)
    allocated = allocated_bytes(libraries)
    graphs = planned.graphs
    return _with_cuts(
        planned, [with_compiled_loads(graphs, cut, allocated, planned.cluster) for cut in cuts], libraries
    )


def _compiled(planned: Planned, monitor: Monitor) -> Made:
    """Compiled and fitting, perhaps with more nodes for ONNX Runtime."""
    try:
        made = _compile(planned, planned.cluster, monitor)
        monitor.begin("fit")
        return _fit(made, monitor)
    except NotCompiledError as error:
        more: dict[str, str] = {}
        modules = (planned.module, *(bucket.module for bucket in planned.buckets.others))
        for stage, device in error.stages:
            more |= refused_primitives(planned.graphs[stage.bucket], modules[stage.bucket], stage, device)
        if not more.keys() - planned.left.keys():
            raise
        again = front(planned.source, planned.importing, monitor.within(), {**planned.left, **more})
        if again.signature.sha256 != planned.signature.sha256:
            raise ModelError(f"model {planned.signature.name} became another one while it was compiled") from error
        return _compiled(plan(again, planned.given, planned.options, monitor.within()), monitor)


def _cut(planned: Planned, plan: Plan, lost: str | None = None, prefix: str = "") -> CutPlan:
    buckets = zip(planned.buckets.others, planned.bucket_prices(plan), strict=True)
    return partition(planned.graph, planned.module, plan, lost, tuple(buckets), prefix)


def _with_cuts(planned: Planned, cuts: Sequence[CutPlan], libraries: Sequence[StageLibrary]) -> Made:
    """`cuts` have the plans that count."""
    spares = tuple(Spare(cut.lost, cut.plan) for cut in cuts if cut.lost is not None)
    return Made(replace(planned, plan=cuts[0].plan, spares=spares), tuple(cuts), tuple(libraries))


def _fit(made: Made, monitor: Monitor, how: _How = _How()) -> Made:
    """Check that what TVM allocates fits the devices; plan, cut and compile again for smaller memories where not.

    Placements are searched by a count of what is alive at a time; TVM's plan is known only of compiled stages. What it
    takes beyond the count is kept free in the next search, which gets as much time as the first. A spare plan that
    still does not fit becomes a note.

    Raises InfeasibleError where the plan does not fit, at once where a plan file says what it is.
    """
    options, cluster = made.planned.options, made.planned.cluster
    reserved: dict[str, int] = {}
    for _ in range(_FITTING_ROUNDS):
        if options.plan is not None or not any(cut.plan.missing_bytes for cut in made.cuts):
            break
        reserved = _beyond_the_count(made, reserved)
        try:
            again = _plan(made.planned.priced, _with_less_memory(cluster, reserved), monitor.within())
            made = _compile(again, cluster, monitor.within(), how)
        except InfeasibleError:
            break
    first = made.cuts[0].plan
    if first.missing_bytes:
        whose = "the plan file" if options.plan is not None else "the plan"
        raise InfeasibleError(f"compiled, {whose} takes more memory than there is: {explain_missing(first.loads)}")
    notes = tuple(
        f"without {cut.lost} the model cannot run: {explain_missing(cut.plan.loads)}"
        for cut in made.cuts
        if cut.plan.missing_bytes
    )
    fitting = [cut for cut in made.cuts if not cut.plan.missing_bytes]
    used = {name for cut in fitting for stage in cut.all_stages for name in stage.hosted.values()}
    libraries = [library for library in made.libraries if library.stage in used]
    planned = replace(made.planned, notes=(*made.planned.notes, *notes))
    return _with_cuts(planned, fitting, libraries)


def _beyond_the_count(made: Made, known: Mapping[str, int]) -> dict[str, int]:
    """For each device the most bytes that a plan takes beyond what `price_stages` counts, and no less than `known`."""
    planned, beyond = made.planned, dict(known)
    for cut in made.cuts:
        counted = price_stages(planned.graph, planned.costs, planned.cluster, cut.plan.stages).loads
        for device, load in cut.plan.loads.items():
            beyond[device] = max(beyond.get(device, 0), load.held_bytes - counted[device].held_bytes)
    return beyond


def _with_less_memory(cluster: Cluster, reserved: Mapping[str, int]) -> Cluster:
    devices = (
        device
        if device.memory_bytes is None
        else replace(device, memory_bytes=max(0, device.memory_bytes - reserved.get(device.name, 0)))
        for device in cluster.devices
    )
    return replace(cluster, devices=tuple(devices))
