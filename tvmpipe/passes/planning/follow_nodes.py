"""A placement for a bucket of a model, from that of another bucket: the same work on the same devices.

Buckets may be fused in other ways (a product of one row is another kernel), so that their primitives are other ones.
What they have in common are the nodes of the ONNX model. Whoever holds a node's weights for one bucket then holds them
for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from tvmpipe.errors import InfeasibleError
from tvmpipe.passes.graph.primitives import ONNXRUNTIME, Primitive, PrimitiveGraph
from tvmpipe.passes.graph.replicas import Group, Placement
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.evaluate import Price, cannot_run, price, price_stages
from tvmpipe.passes.planning.plan import Plan
from tvmpipe.targets.description.cluster import Cluster


def price_bucket(
    graph: PrimitiveGraph, costs: CostTable, reference: PrimitiveGraph, plan: Plan, cluster: Cluster
) -> Price:
    """A bucket on the devices that `plan` has for its reference, over links that encode what they carry as there.

    Raises InfeasibleError where only this bucket needs ONNX Runtime, and none of these devices has it.
    """
    placement = _on_devices_that_can(graph, cluster, follow_nodes(graph, reference, plan.placement))
    stages = price(graph, costs, cluster, placement, plan.objective).stages
    encodings = {(link.sender, link.receiver): link.encoding for link in plan.links}
    return price_stages(graph, costs, cluster, stages, encodings)


def _on_devices_that_can(graph: PrimitiveGraph, cluster: Cluster, placement: Placement) -> Placement:
    """The placement, with what ONNX Runtime must run on devices that have it: what TVM compiles differs by bucket."""
    if (wrong := cannot_run(graph, cluster, placement)) is None:
        return placement
    having = {device.name for device in cluster.devices if device.onnxruntime}
    group = next((group for group in placement.values() if having.issuperset(group)), None)
    if group is None:
        raise InfeasibleError(f"a bucket needs {wrong}, as has no other device of the plan")
    moved = {name for name, primitive in graph.by_name().items() if primitive.codegen == ONNXRUNTIME}
    return {name: here if name not in moved or having.issuperset(here) else group for name, here in placement.items()}


def follow_nodes(graph: PrimitiveGraph, reference: PrimitiveGraph, placement: Placement) -> dict[str, Group]:
    """Where the primitives of `graph` go: each where most of its nodes are in `placement`, which is of `reference`.

    Nodes that several devices compute, such as positions, say nothing where there are others. What shares no node with
    the reference, such as changes of layout, goes with what reads it, else with what it reads. What reads or makes a
    state goes where the state is.
    """
    groups_of: dict[str, Counter[Group]] = {}
    for name, primitive in reference.by_name().items():
        for node in primitive.onnx_nodes:
            groups_of.setdefault(node, Counter())[placement[name]] += 1
    placed: dict[int, Group] = {}
    for users, theirs in zip(graph.state_users, reference.state_users, strict=True):
        placed.update(dict.fromkeys(users, placement[reference.primitives[theirs[0]].name]))
    left: list[Primitive] = []
    for primitive in graph.by_name().values():
        if primitive.index in placed:
            continue
        known = [groups_of[node] for node in primitive.onnx_nodes if node in groups_of]
        votes: Counter[Group] = Counter()
        for groups in [groups for groups in known if len(groups) == 1] or known:
            votes.update(groups)
        if votes:
            placed[primitive.index] = votes.most_common(1)[0][0]
        else:
            left.append(primitive)
    for primitive in reversed(left):
        _place(primitive, (reader for value in primitive.outputs for reader in graph.readers[value]), placed)
    for primitive in left:
        makers = (graph.values[value].producer for value in primitive.inputs)
        _place(primitive, (maker for maker in makers if maker is not None), placed)
    anywhere = next(iter(placement.values()))
    return {name: placed.get(primitive.index, anywhere) for name, primitive in graph.by_name().items()}


def _place(primitive: Primitive, beside: Iterable[int], placed: dict[int, Group]) -> None:
    """With most of its neighbours, unless it has a place."""
    votes: Mapping[Group, int] = Counter(placed[index] for index in beside if index in placed)
    if votes and primitive.index not in placed:
        placed[primitive.index] = max(votes, key=lambda group: votes[group])
