"""Latencies of links: they keep nobody busy, and ask for more samples at once."""

from __future__ import annotations

import pytest

from tests.models import chain
from tvmpipe.passes import driver
from tvmpipe.passes.driver import Fused
from tvmpipe.passes.graph.stages import StageShape
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.device_load import DeviceLoad
from tvmpipe.passes.planning.inflight import in_flight
from tvmpipe.passes.planning.place import place
from tvmpipe.passes.planning.plan import Plan
from tvmpipe.passes.planning.problem_from_plan import stage_problem
from tvmpipe.passes.reports.report import render, report
from tvmpipe.passes.simulation import simulate
from tvmpipe.targets.description.cluster import Cluster, Link, parse_cluster

KIB = 1 << 10
FAR = Link(12.5e6, 20e-3)
LAYER_S = 0.4e-3
LAYERS = 4


def far_apart(memory: str | None = None) -> Cluster:
    """Two devices and the head, each 20 ms from the others."""
    limit = "" if memory is None else f'memory = "{memory}"\n'
    text = "".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n{limit}' for i in range(2))
    return Cluster(parse_cluster(text).devices, {}, FAR)


def planned(cluster: Cluster, seconds: float = LAYER_S) -> tuple[Plan, Fused, CostTable]:
    """Layers that pass 1 KiB on and take so long each, anywhere."""
    fused = driver.front(chain(LAYERS, 64))
    costs = CostTable(
        {d.name: (seconds,) * len(fused.graph.primitives) for d in cluster.devices},
        {d.name: "by hand" for d in cluster.devices},
    )
    return place(fused.graph, costs, cluster, BuildOptions(time_limit_s=2.0)), fused, costs


def test_small_tensors_over_a_long_way_are_worth_it() -> None:
    """1 KiB takes 82 us of the link; its 20 ms are no reason to leave a device idle."""
    plan, fused, costs = planned(far_apart())
    assert plan.period_s == pytest.approx(LAYERS / 2 * LAYER_S)
    assert len(plan.bottleneck) == 1
    assert [link.busy_s for link in plan.links] == pytest.approx([KIB / FAR.bandwidth_bps] * 3)
    assert plan.latency_s == pytest.approx(LAYERS * LAYER_S + 3 * (20e-3 + KIB / FAR.bandwidth_bps))
    # 61.8 ms at one result every 0.8 ms are 78 samples, 3 of them not on links.
    assert (plan.in_flight.samples, plan.in_flight.on_links) == (78 + 2, 75)
    problem, solution, groups = stage_problem(fused.graph, costs, far_apart(), plan)
    full = simulate(problem, solution, 400, plan.in_flight.samples, groups=groups)
    assert full.period_s == pytest.approx(plan.period_s, rel=0.01)
    few = simulate(problem, solution, 400, 10, groups=groups)
    assert few.period_s == pytest.approx(plan.latency_s / 10, rel=0.05)


def test_where_memories_hold_few_samples_the_latency_bounds_the_period() -> None:
    """Both devices are full but for some KiB: too few samples at once hide two latencies more, and one is faster."""
    cluster = far_apart("80KiB")
    plan, fused, costs = planned(cluster)
    assert plan.best_single is not None
    assert plan.period_s <= plan.best_single[1] * (1 + 1e-9)
    room = min((80 * KIB - load.held_bytes) // (2 * KIB) for load in plan.loads.values())
    assert plan.in_flight.on_links <= room < 75
    assert plan.period_s == pytest.approx(plan.latency_s / plan.in_flight.samples)
    assert plan.bottleneck == ()
    facts = report(fused.signature, fused.graph, costs, cluster, plan)
    assert facts["bottleneck"]["ends"] == []
    assert facts["on_links"] == plan.in_flight.on_links
    lines = [str(line) for line in getattr(render(facts), "renderables")]  # noqa: B009
    assert any("the bottleneck is the latency of links" in line for line in lines)


def load(memory_bytes: int | None, moved: int = 1000) -> DeviceLoad:
    return DeviceLoad(1.0, moved, moved, 5000, 5000, memory_bytes)


@pytest.mark.parametrize(
    ("loads", "busiest_s", "latency_s", "links_s", "samples", "on_links"),
    [
        ({"a": load(None)}, 1.0, 3.5, 0.0, 4 + 2, 0),
        ({"a": load(None)}, 1.0, 103.5, 100.0, 104 + 2, 100),
        ({"a": load(None), "b": load(50_000)}, 1.0, 103.5, 100.0, 4 + 2 + 20, 20),
        ({"a": load(10_000)}, 1.0, 103.5, 100.0, 4 + 2, 0),
        ({"a": load(9_000)}, 1.0, 103.5, 100.0, 4 + 2, 0),
        ({"a": load(10_000, 0)}, 1.0, 103.5, 100.0, 104 + 2, 100),
        ({"a": load(None)}, 1e-3, 103.5, 100.0, 3500 + 2 + 512, 512),
        ({"a": load(None)}, 0.0, 100.0, 100.0, 2 + 512, 512),
        ({"a": load(None)}, 0.0, 0.0, 0.0, 2, 0),
    ],
)
def test_samples_at_once_by_hand(
    loads: dict[str, DeviceLoad], busiest_s: float, latency_s: float, links_s: float, samples: int, on_links: int
) -> None:
    stages = [StageShape(("a",), (0,), (), (), ())]
    found = in_flight(stages, loads, busiest_s, latency_s, links_s)
    assert (found.samples, found.on_links) == (samples, on_links)
