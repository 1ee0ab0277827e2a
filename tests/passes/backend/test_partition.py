"""Any placement whatever gives stages that compute what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models import branchy
from tvmpipe.commands.samples import random_samples
from tvmpipe.passes import driver
from tvmpipe.passes.driver import Fused
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.stages import StageShape, derive_stages
from tvmpipe.passes.objectives import NAMES, find_objective
from tvmpipe.passes.options import BuildOptions
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

DEVICES = ("alpha", "beta", "gamma")
CLUSTER = parse_cluster("".join(f'[[device]]\nname = "{name}"\nthreads = 1\n' for name in DEVICES))


@pytest.fixture(scope="module")
def front() -> Fused:
    return driver.front(branchy())


def stage_graph(graph: PrimitiveGraph, stages: list[StageShape]) -> nx.DiGraph:
    owner = {index: number for number, stage in enumerate(stages) for index in stage.primitives}
    quotient = nx.DiGraph()
    quotient.add_nodes_from(range(len(stages)))
    quotient.add_edges_from((owner[a], owner[b]) for a, b in graph.digraph().edges if owner[a] != owner[b])
    return quotient


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_stages_are_acyclic_and_complete(front: Fused, data: st.DataObject) -> None:
    graph = front.graph
    placement = {name: (data.draw(st.sampled_from(DEVICES)),) for name in graph.by_name()}
    stages = derive_stages(graph, placement, eager=data.draw(st.booleans()))
    quotient = stage_graph(graph, stages)
    assert nx.is_directed_acyclic_graph(quotient)
    assert all(a < b for a, b in quotient.edges), "stages must stand in an order in which they can run"
    placed = [index for stage in stages for index in stage.primitives]
    assert sorted(placed) == sorted(p.index for p in graph.by_name().values())
    for stage in stages:
        assert all(placement[graph.primitives[index].name] == stage.devices for index in stage.primitives)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cut_computes_the_same(front: Fused, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    graph = front.graph
    placement = {name: data.draw(st.sampled_from(DEVICES)) for name in graph.by_name()}
    plan = tmp_path_factory.mktemp("cut") / "plan.yaml"
    plan.write_text("placement:\n" + "".join(f"  {name}: {device}\n" for name, device in placement.items()))
    objective = find_objective(data.draw(st.sampled_from(NAMES)))
    bundle = driver.compile(driver.plan(front, CLUSTER, BuildOptions(plan=plan, objective=objective))).bundle
    reference = Reference(branchy().SerializeToString())
    with run_in_process(bundle) as pipe:
        for sample in random_samples(bundle.manifest, 3, seed=1):
            assert reference.compare(pipe.run(sample), sample).equal


def test_weights_are_only_where_they_are_read(chain_bundle: object, chain_path: Path) -> None:
    from tvmpipe.bundle import Bundle

    assert isinstance(chain_bundle, Bundle)
    sizes = [stage.weight_bytes for stage in chain_bundle.manifest.plan.stages]
    assert sizes == [2 * 256 * 256 * 4] * 3
