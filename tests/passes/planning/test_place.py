"""Planning whole models: memory, pins, plan files, and never being worse than one device."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.models import branchy, chain, save, two_branches
from tvmpipe.errors import InfeasibleError, PlanError
from tvmpipe.passes import driver
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.stages import StageShape
from tvmpipe.passes.objectives import find_objective
from tvmpipe.passes.objectives.latency import OBJECTIVE as LATENCY
from tvmpipe.passes.objectives.throughput import OBJECTIVE as THROUGHPUT
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.evaluate import price
from tvmpipe.passes.planning.plan import Plan, to_yaml, written
from tvmpipe.targets.description.cluster import (
    DEFAULT_BANDWIDTH_BPS,
    DEFAULT_LATENCY_S,
    HEAD,
    Cluster,
    Link,
    load_cluster,
    parse_cluster,
)

WEIGHTS = 6 * 256 * 256 * 4  # of chain()


def cluster_of(*memories: str) -> Cluster:
    """Devices d0, d1, ... with these memories."""
    text = "".join(f'[[device]]\nname = "d{i}"\nthreads = 1\nmemory = "{m}"\n' for i, m in enumerate(memories))
    return parse_cluster(text)


def plan_of(model: object, cluster: Cluster | Path, **options: Any) -> Plan:
    devices = cluster if isinstance(cluster, Cluster) else load_cluster(cluster)
    return driver.plan(driver.front(model), devices, BuildOptions(**options)).plan


@pytest.mark.parametrize("objective", ["throughput", "latency"])
def test_never_worse_than_one_device(branchy_path: Path, objective: str) -> None:
    cluster = parse_cluster(
        '[[device]]\nname = "fast"\ntarget = "x86-64-v3"\n[[device]]\nname = "slow"\ntarget = "x86-64-v2"\n'
    )
    plan = plan_of(branchy_path, cluster, objective=find_objective(objective))
    assert plan.best_single is not None
    assert plan.value_s <= plan.best_single[1] * (1 + 1e-9)
    assert plan.bound_s is not None
    assert plan.bound_s <= plan.value_s


def test_model_too_large_for_one_device_is_spread() -> None:
    cluster = cluster_of("700KiB", "700KiB", "700KiB")
    plan = plan_of(chain(), cluster)
    assert plan.best_single is None
    assert len(plan.loads) == 3
    for load in plan.loads.values():
        assert load.weight_bytes + load.activation_bytes <= 700 * 1024
    assert sum(load.weight_bytes for load in plan.loads.values()) == WEIGHTS


def test_devices_can_be_filled_to_the_brim() -> None:
    """Six equal layers on two devices that hold three each."""
    three = 3 * 256 * 256 * 4 + 4 * 4 * 256 * 4  # a stage holds its input twice and two results
    plan = plan_of(chain(), cluster_of(f"{three}B", f"{three}B"))
    assert {load.weight_bytes for load in plan.loads.values()} == {3 * 256 * 256 * 4}


def test_model_too_large_for_all_says_what_is_missing() -> None:
    with pytest.raises(InfeasibleError) as caught:
        plan_of(chain(), cluster_of("400KiB", "400KiB", "400KiB"))
    assert caught.value.exit_code == 3
    # One layer (256 KiB) and its activations fit each device; the three others are missing somewhere.
    missing = int(str(caught.value).split(" bytes are missing")[0].split("; ")[-1])
    activations = 2 * 4 * 256 * 4
    assert missing == WEIGHTS + 3 * activations - 3 * 400 * 1024
    assert " on d" in str(caught.value)


def test_one_device_too_small_by_itself() -> None:
    with pytest.raises(InfeasibleError, match=r"bytes are missing: \d+ bytes \(.*\) on d0"):
        plan_of(chain(), cluster_of("100KiB"))


def test_pins_hold(branchy_path: Path, cluster_path: Path) -> None:
    plan = plan_of(branchy_path, cluster_path, pins={"*conv2d*": "beta"})
    convs = [device for name, device in plan.placement.items() if "conv2d" in name]
    assert len(convs) >= 2
    assert set(convs) == {("beta",)}


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ({"nothing": "beta"}, "pin 'nothing' matches no primitive"),
        ({"*": "delta"}, "on 'delta'; allowed: alpha, beta, gamma"),
        ({"*conv2d*": "beta", "0*": "alpha"}, "pins put .* on both 'beta' and 'alpha'"),
    ],
)
def test_wrong_pins(branchy_path: Path, cluster_path: Path, pins: dict[str, str], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan_of(branchy_path, cluster_path, pins=pins)


def test_parallel_branches_run_at_the_same_time_for_latency() -> None:
    """Two heavy branches after one small node: the second device must not wait for the first one's branch."""
    plan = plan_of(two_branches(), cluster_of("1GiB", "1GiB"), objective=LATENCY)
    assert plan.best_single is not None
    assert plan.latency_s < 0.75 * plan.best_single[1]
    assert len(plan.loads) == 2


def test_equal_devices_take_turns_where_that_is_faster() -> None:
    """One layer cannot be cut; two equal devices that take turns still are twice as fast as one."""
    near = Link(1e10, 1e-6)
    cluster = replace(cluster_of("1GiB", "1GiB", "2MiB"), network=near)
    model = chain(1, 2048)
    alone = plan_of(model, cluster)
    assert alone.best_single is not None
    assert alone.period_s == pytest.approx(alone.best_single[1])
    plan = plan_of(model, cluster, replicate=True)
    assert set(plan.placement.values()) == {("d0", "d1")}
    assert plan.period_s == pytest.approx(alone.period_s / 2)
    assert plan.bound_s is not None
    # The layer is too large for d2, so that two share it; the bound leaves out what entering a stage costs.
    assert 0.7 * plan.period_s < plan.bound_s <= plan.period_s


def test_turns_end_where_the_memory_does() -> None:
    """Either device could hold half of the layers, and none of them all."""
    cluster = replace(cluster_of("900KiB", "900KiB"), network=Link(1e10, 1e-6))
    plan = plan_of(chain(), cluster, replicate=True)
    assert set(plan.placement.values()) == {("d0",), ("d1",)}


def test_price_is_what_the_executor_does() -> None:
    """By hand: a chain cut once between two devices; receiving, computing and sending overlap."""
    cluster = cluster_of("1GiB", "1GiB")
    state = driver.plan(driver.front(chain(2, 64)), cluster)
    first, second = state.graph.by_name()
    cut = {first: ("d0",), second: ("d1",)}
    busy = 4 * 64 * 4 / DEFAULT_BANDWIDTH_BPS
    hop = busy + DEFAULT_LATENCY_S
    enter_s, byte_s = state.costs.entry_s["d0"]
    assert enter_s > 0 < byte_s
    step = state.costs.latency_s["d0"][0] + enter_s + byte_s * 4 * 64 * 4
    priced = price(state.graph, state.costs, cluster, cut, THROUGHPUT)
    assert priced.period_s == pytest.approx(max(step, busy))
    assert priced.latency_s == pytest.approx(2 * step + 3 * hop)
    assert [stage.devices for stage in priced.stages] == [("d0",), ("d1",)]
    assert [(link.sender, link.receiver) for link in priced.links] == [(HEAD, "d0"), ("d0", "d1"), ("d1", HEAD)]


def test_price_of_any_placement_by_an_independent_evaluator() -> None:
    """Random placements of a net whose branches join: every tensor once per device, messages in turn per link."""
    cluster = replace(
        cluster_of("1GiB", "1GiB", "1GiB"),
        links={frozenset(("d0", "d1")): Link(1e6, 0.002), frozenset(("d2", HEAD)): Link(5e5, 0.001)},
    )
    state = driver.plan(driver.front(branchy()), cluster)
    graph, costs = state.graph, state.costs
    generator = random.Random(0)
    for _ in range(50):
        placement = {name: (generator.choice(("d0", "d1", "d2")),) for name in graph.by_name()}
        priced = price(graph, costs, cluster, placement, THROUGHPUT)
        assert (priced.period_s, priced.latency_s) == pytest.approx(simulate(graph, costs, cluster, priced.stages))


def simulate(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, stages: Sequence[StageShape]
) -> tuple[float, float]:
    """(period, latency): totals per resource, and one sample in steps of whichever stage or message can go next."""
    devices = [device.name for device in cluster.devices]
    work = {}
    on = [stage.devices[0] for stage in stages]  # here no devices take turns
    for number, stage in enumerate(stages):
        enter_s, byte_s = costs.entry_s[on[number]]
        given = sum(graph.values[value].spec.size_bytes for value in stage.inputs)
        run_s = sum(costs.latency_s[on[number]][i] for i in (*stage.primitives, *stage.repeated))
        work[number] = enter_s + byte_s * given + run_s
    busy: dict[object, float] = dict.fromkeys(devices, 0.0)
    for number in work:
        busy[on[number]] += work[number]
    sends: dict[tuple[object, str, str], set[int]] = {}
    made = {value: n for n, stage in enumerate(stages) for value in stage.outputs}
    for place in (*devices, HEAD):
        reads = {value for stage in stages if stage.devices == (place,) for value in stage.inputs}
        for value in reads if place != HEAD else graph.model_outputs.values():
            origin = HEAD if value not in made else on[made[value]]
            if origin != place:
                sends.setdefault((made.get(value), origin, place), set()).add(value)
    took = {}
    for (source, origin, place), values in sends.items():
        link = cluster.link(origin, place)
        size = sum(graph.values[value].spec.size_bytes for value in values)
        took[source, origin, place] = size / link.bandwidth_bps
        busy[origin, place] = busy.get((origin, place), 0.0) + took[source, origin, place]
    # Event by event: what has been made where, when; each resource takes its tasks as they become possible.
    at: dict[tuple[int, str], float] = {}
    free: dict[object, float] = {}
    left: set[object] = {*work, *sends}
    done: dict[object, float] = {None: 0.0}
    while left:
        possible: list[tuple[float, int, object]] = []
        for task in left:
            if isinstance(task, int):
                needs = [(value, on[task]) for value in stages[task].inputs]
                if all(need in at for need in needs):
                    begin = max([free.get(on[task], 0.0), *(at[need] for need in needs)])
                    possible.append((begin, task, task))
            else:
                assert isinstance(task, tuple)
                if task[0] in done:
                    possible.append((max(done[task[0]], free.get(task[1:], 0.0)), -1, task))
        begin, _, task = min(possible, key=lambda one: (one[0], one[1], str(one[2])))
        left.remove(task)
        if isinstance(task, int):
            done[task] = free[on[task]] = begin + work[task]
            at.update(((value, on[task]), done[task]) for value in stages[task].outputs)
        else:
            assert isinstance(task, tuple)
            free[task[1:]] = begin + took[task]
            late = cluster.link(task[1], task[2]).latency_s  # others may follow meanwhile
            at.update(((value, task[2]), begin + took[task] + late) for value in sends[task])
    return max(busy.values()), max(at[value, HEAD] for value in graph.model_outputs.values())


def test_a_slow_link_is_avoided() -> None:
    """Three equal devices, one behind a slow link: only the other two share the work."""
    cluster = replace(
        cluster_of("1GiB", "1GiB", "1GiB"),
        links={frozenset((other, "d2")): Link(1e4, 0.1) for other in ("d0", "d1", HEAD)},
    )
    plan = plan_of(two_branches(), cluster)
    assert set(plan.loads) == {"d0", "d1"}
    assert plan.best_single is not None
    assert plan.period_s < 0.75 * plan.best_single[1]
    assert plan.bottleneck in (("d0",), ("d1",))


def test_plan_file_is_followed(
    branchy_path: Path, cluster_path: Path, spread_plan: Callable[[Path, list[str]], Path]
) -> None:
    path = spread_plan(branchy_path, ["gamma", "beta"])
    plan = plan_of(branchy_path, cluster_path, plan=path)
    assert written(plan.placement) == yaml.safe_load(path.read_text())["placement"]
    assert plan.origin == "plan file"


def test_written_plan_reads_back(tmp_path: Path, branchy_path: Path, cluster_path: Path) -> None:
    state = driver.plan(driver.front(branchy_path), load_cluster(cluster_path))
    path = tmp_path / "plan.yaml"
    path.write_text(to_yaml(state.plan, state.graph, state.signature.sha256))
    again = plan_of(branchy_path, cluster_path, plan=path)
    assert again.placement == state.plan.placement
    assert again.period_s == state.plan.period_s


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("placement: [", "cannot be read"),
        ("nothing: 1", "has no 'placement'"),
        ("placement: {zzz: alpha}", "places 'zzz', which is no primitive"),
        ("placement: {'*': }", "puts \\* on nothing; allowed: alpha, beta, gamma"),
        ("placement: {'*': [alpha, zeta]}", "puts \\* on 'zeta'; allowed: alpha, beta, gamma"),
        ("placement: {}", "does not place '000"),
        ("format: 7\nplacement: {}", "has format 7"),
        ("model_sha256: abc\nplacement: {}", "was made for another model"),
    ],
)
def test_wrong_plan_files(tmp_path: Path, branchy_path: Path, cluster_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match=message):
        plan_of(branchy_path, cluster_path, plan=path)


def test_plan_file_beyond_memory_is_infeasible(tmp_path: Path) -> None:
    model = save(chain(), tmp_path)
    cluster = cluster_of("700KiB", "700KiB", "700KiB")
    state = driver.plan(driver.front(model), cluster)
    path = tmp_path / "plan.yaml"
    path.write_text("placement:\n" + "".join(f"  {name}: d1\n" for name in state.plan.placement))
    with pytest.raises(InfeasibleError, match=r"the plan file does not fit: d1 misses \d+ bytes"):
        plan_of(model, cluster, plan=path)
