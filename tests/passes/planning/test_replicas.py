"""Devices that take samples in turn: what such a plan costs, how it is written, and what becomes of it on a loss."""

from __future__ import annotations

import json
import math
import platform
import random
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

import tvmpipe
from tests.models import branchy, chain, save
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.errors import InfeasibleError, PlanError
from tvmpipe.manifest import Turn
from tvmpipe.passes import driver
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.replicas import Group, conflict, show, without
from tvmpipe.passes.objectives.throughput import OBJECTIVE as THROUGHPUT
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.compression import compress
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.evaluate import Price, price
from tvmpipe.passes.planning.plan import Plan, to_yaml
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import HEAD, Cluster, Link, parse_cluster

NETWORK = Link(1e6, 1e-3)
TENSOR = 4 * 64 * 4  # bytes of what passes between two layers of chain(3, 64)
BUSY = 1.024e-3  # what a tensor takes of NETWORK
HOP = 2.024e-3  # from its sender to its receiver: with the latency
WEIGHTS = 64 * 64 * 4
OTHER = "x86-64-v2" if platform.machine() == "x86_64" else "pi4"  # what every such machine runs, besides "native"


def cluster_of(count: int, **links: Link) -> Cluster:
    """Devices d0, d1, ...; `links` by names such as d0_d3."""
    text = "".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(count))
    return Cluster(parse_cluster(text).devices, {frozenset(ends.split("_")): k for ends, k in links.items()}, NETWORK)


@pytest.fixture(scope="module")
def layers() -> PrimitiveGraph:
    """Three layers, one after the other."""
    graph = driver.front(chain(3, 64)).graph
    assert len(graph.by_name()) == len(graph.primitives) == 3
    return graph


def priced(graph: PrimitiveGraph, places: list[Group], cluster: Cluster, **milliseconds: float) -> Price:
    """The price of a layer on each place where a device takes so long for each of its layers."""
    costs = CostTable({name: (ms * 1e-3,) * 3 for name, ms in milliseconds.items()}, {})
    return price(graph, costs, cluster, dict(zip(graph.by_name(), places, strict=True)), THROUGHPUT)


def plan_of(graph: PrimitiveGraph, one: Price) -> Plan:
    placement = {graph.primitives[i].name: stage.devices for stage in one.stages for i in stage.primitives}
    return Plan(
        **vars(one),
        objective=THROUGHPUT,
        placement=placement,
        bound_s=None,
        origin="plan file",
        single_device_s={},
    )


def test_a_middle_stage_on_two_unequal_devices(layers: PrimitiveGraph) -> None:
    """By hand: d1 and d2 compute every second sample; d2 is slower and behind a slower link."""
    cluster = cluster_of(4, d2_d3=Link(0.5e6, 1e-3))
    one = priced(layers, [("d0",), ("d1", "d2"), ("d3",)], cluster, d0=2, d1=3, d2=5, d3=2)
    busy = {name: load.busy_s for name, load in one.loads.items()}
    assert busy == pytest.approx({"d0": 2e-3, "d1": 1.5e-3, "d2": 2.5e-3, "d3": 2e-3})
    assert {(link.sender, link.receiver): link.busy_s for link in one.links} == pytest.approx(
        {
            (HEAD, "d0"): BUSY,
            ("d0", "d1"): BUSY / 2,
            ("d0", "d2"): BUSY / 2,
            ("d1", "d3"): BUSY / 2,
            ("d2", "d3"): 2 * BUSY / 2,
            ("d3", HEAD): BUSY,
        }
    )
    assert [link.share for link in one.links] == [1, 0.5, 0.5, 0.5, 0.5, 1]
    assert {link.size_bytes for link in one.links} == {TENSOR}
    assert one.period_s == pytest.approx(2.5e-3)
    assert one.latency_s == pytest.approx(HOP + 2e-3 + HOP + 5e-3 + 3.048e-3 + 2e-3 + HOP)
    assert {name: (load.receive_bytes, load.send_bytes) for name, load in one.loads.items()} == {
        "d0": (TENSOR, TENSOR),
        "d1": (TENSOR / 2, TENSOR / 2),
        "d2": (TENSOR / 2, TENSOR / 2),
        "d3": (TENSOR, TENSOR),
    }
    assert {load.weight_bytes for load in one.loads.values()} == {WEIGHTS}, "each holds the whole stage"
    plan = plan_of(layers, one)
    assert plan.bottleneck == ("d2",)
    # 18.1 ms at one result every 2.5 ms are 8 samples, without four latencies 6; of d1 and d2 each has one more on its
    # way in and one out.
    assert (plan.in_flight.samples, plan.in_flight.on_links) == (8 + 4, 2)


def test_first_and_last_stages_in_turn(layers: PrimitiveGraph) -> None:
    """Two then two devices are two lanes; two then three are six links, each for one sample in six."""
    even = priced(layers, [("d0", "d1"), ("d0", "d1"), ("d2", "d3")], cluster_of(4), d0=4, d1=5, d2=4, d3=6)
    shares = {(link.sender, link.receiver): link.share for link in even.links}
    ends = [(HEAD, "d0"), (HEAD, "d1"), ("d0", "d2"), ("d1", "d3"), ("d2", HEAD), ("d3", HEAD)]
    assert shares == dict.fromkeys(ends, 0.5)
    assert even.period_s == pytest.approx(5e-3), "two layers of 5 ms every second sample on d1"
    odd = priced(layers, [("d0", "d1"), ("d0", "d1"), ("d2", "d3", "d4")], cluster_of(5), d0=4, d1=5, d2=4, d3=6, d4=5)
    inner = {(a.sender, a.receiver): a.share for a in odd.links if HEAD not in (a.sender, a.receiver)}
    assert inner == {(a, b): pytest.approx(1 / 6) for a in ("d0", "d1") for b in ("d2", "d3", "d4")}
    assert odd.loads["d3"].busy_s == pytest.approx(2e-3)
    assert sum(link.share for link in odd.links if link.receiver == "d3") == pytest.approx(1 / 3)


def test_the_slowest_links_between_devices_that_take_turns_are_encoded(layers: PrimitiveGraph) -> None:
    slow = Link(0.1e6, 0.0)
    one = priced(
        layers, [("d0",), ("d1", "d2"), ("d3",)], cluster_of(4, d0_d1=slow, d0_d2=slow), d0=2, d1=3, d2=5, d3=2
    )
    costs = CostTable({name: (2e-3,) * 3 for name in ("d0", "d1", "d2", "d3")}, {})
    plan, notes = compress(layers, costs, cluster_of(4, d0_d1=slow, d0_d2=slow), plan_of(layers, one), "fp16")
    assert {(link.sender, link.receiver) for link in plan.links if link.encoding == "fp16"} == {
        ("d0", "d1"),
        ("d0", "d2"),
    }
    assert len(notes) == 2
    assert plan.period_s == pytest.approx(0.5 * TENSOR / 2 / 0.1e6)


def test_price_of_any_groups_by_following_every_sample_of_a_round() -> None:
    """Random placements of a net whose branches join: who computes, sends and receives what, sample by sample."""
    devices = [f"d{i}" for i in range(6)]
    state = driver.front(branchy())
    graph = state.graph
    generator = random.Random(0)
    for _ in range(40):
        generator.shuffle(devices)
        cuts = sorted(generator.sample(range(1, 6), generator.randrange(1, 4)))
        groups = [devices[a:b] for a, b in zip([0, *cuts], [*cuts, 6], strict=True)]
        costs = CostTable({d: tuple(generator.random() for _ in graph.primitives) for d in devices}, {})
        placement = {name: tuple(generator.choice(groups)) for name in graph.by_name()}
        one = price(graph, costs, cluster_of(6), placement, THROUGHPUT)
        busy: dict[object, float] = defaultdict(float)
        samples = math.lcm(*map(len, groups))
        for sample in range(samples):
            sends: dict[tuple[object, str, str], int] = {}
            made = {}
            for number, stage in enumerate(one.stages):
                device = stage.devices[sample % len(stage.devices)]
                inside = (*stage.primitives, *stage.repeated)
                busy[device] += sum(costs.latency_s[device][i] for i in inside) / samples
                made.update(dict.fromkeys(stage.outputs, (number, device)))
            wanted = {(v, s.devices[sample % len(s.devices)]) for s in one.stages for v in s.inputs}
            wanted |= {(value, HEAD) for value in graph.model_outputs.values()}
            for value, receiver in wanted:
                source, sender = made.get(value, (None, HEAD))
                if sender != receiver:
                    size = graph.values[value].spec.size_bytes
                    sends[source, sender, receiver] = sends.get((source, sender, receiver), 0) + size
            for (_, sender, receiver), size in sends.items():
                busy[sender, receiver] += size / NETWORK.bandwidth_bps / samples
        assert one.period_s == pytest.approx(max(busy.values()))
        told = {name: load.busy_s for name, load in one.loads.items()}
        told |= {(link.sender, link.receiver): link.busy_s for link in one.links}  # type: ignore[misc]
        assert told == pytest.approx(busy)
        alike = CostTable({d: costs.latency_s[group[0]] for group in groups for d in group}, {})
        lane = {name: place[:1] for name, place in placement.items()}
        latency = price(graph, alike, cluster_of(6), lane, THROUGHPUT).latency_s
        assert price(graph, alike, cluster_of(6), placement, THROUGHPUT).latency_s == pytest.approx(latency)


def test_a_device_is_in_one_group_once() -> None:
    assert conflict({"a": ("x", "y"), "b": ("x", "y"), "c": ("z",)}) is None
    assert (
        conflict({"a": ("x", "y"), "b": ("y", "x")})
        == "y cannot be in both [x, y] and [y, x]; no device is in two places"
    )
    assert conflict({"a": ("x", "y"), "b": ("y",)}) == "y cannot be in both [x, y] and y; no device is in two places"
    assert conflict({"a": ("x", "x")}) == "x cannot take turns with itself in [x, x]"
    assert (show(("x", "y")), show(("x",))) == ("[x, y]", "x")
    assert without({"a": ("x", "y"), "b": ("z",)}, "x") == {"a": ("y",), "b": ("z",)}
    assert without({"a": ("x", "y"), "b": ("z",)}, "z") is None


def test_turns_meet_where_some_batch_is_for_both() -> None:
    for first in range(1, 7):
        for second in range(1, 7):
            for a in range(first):
                for b in range(second):
                    one, other = Turn(place=a, of=first), Turn(place=b, of=second)
                    assert one.meets(other) == any(one.takes(n) and other.takes(n) for n in range(first * second))


def test_plan_files_have_lists(tmp_path: Path) -> None:
    model = save(chain(3, 64), tmp_path)
    cluster = cluster_of(3)
    names = list(driver.front(model).graph.by_name())
    path = tmp_path / "plan.yaml"

    def follow(text: str) -> Plan:
        path.write_text("placement:\n" + "".join(f"  {n}: {p}\n" for n, p in zip(names, text.split(";"), strict=True)))
        state = driver.plan(driver.front(model), cluster, BuildOptions(plan=path))
        again = to_yaml(state.plan, state.graph, state.signature.sha256)
        assert yaml.safe_load(again)["placement"] == yaml.safe_load(path.read_text())["placement"]
        assert sum("d1" in line for line in again.splitlines()) == 2, "a line for each primitive, the list in it"
        return state.plan

    plan = follow("d0;[d1, d2];[d1, d2]")
    assert dict(plan.placement) == dict(zip(names, [("d0",), ("d1", "d2"), ("d1", "d2")], strict=True))
    assert [stage.devices for stage in plan.stages] == [("d0",), ("d1", "d2")]
    for text, message in (
        ("d0;[d1, d1];d2", r"d1 cannot take turns with itself in \[d1, d1\]$"),
        ("d0;[d1, d2];d1", r"d1 cannot be in both \[d1, d2\] and d1; no device is in two places$"),
        ("d0;[d1, d2];[d2, d1]", r"d2 cannot be in both \[d1, d2\] and \[d2, d1\]; no device is in two places$"),
        ("d0;[d1, d7];d2", "on 'd7'; allowed: d0, d1, d2"),
        ("d0;[d1, {a: b}];d2", "on {'a': 'b'}; allowed: d0, d1, d2"),
        ("d0;d1+d2;d2", r"on 'd1\+d2'; allowed: d0, d1, d2"),
        ("d0;[];d2", "on an empty list; allowed: d0, d1, d2"),
    ):
        with pytest.raises(PlanError, match=message):
            follow(text)


def test_each_device_must_hold_all_of_its_stage(tmp_path: Path) -> None:
    model = save(chain(3, 64), tmp_path)
    small = 3 * WEIGHTS - 1
    cluster = parse_cluster(f'[[device]]\nname = "d0"\n[[device]]\nname = "d1"\nmemory = "{small}B"\n')
    path = tmp_path / "plan.yaml"
    names = driver.front(model).graph.by_name()
    path.write_text("placement:\n" + "".join(f"  {name}: [d0, d1]\n" for name in names))
    with pytest.raises(InfeasibleError, match=r"the plan file does not fit: d1 misses \d+ bytes"):
        driver.plan(driver.front(model), cluster, BuildOptions(plan=path))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Three layers: on d0, in turn on d1, d2 and d3 (two targets), and on d0; with plans for the loss of each."""
    folder = tmp_path_factory.mktemp("turns")
    model = save(chain(3, 64), folder)
    text = "".join(
        f'[[device]]\nname = "d{i}"\nthreads = 1\ntarget = "{OTHER if i == 2 else "native"}"\n' for i in range(4)
    )
    cluster = parse_cluster(text)
    names = driver.front(model).graph.by_name()
    path = folder / "plan.yaml"
    places = ["d0", "[d1, d2, d3]", "d0"]
    path.write_text("placement:\n" + "".join(f"  {n}: {p}\n" for n, p in zip(names, places, strict=True)))
    return tvmpipe.build(model, cluster, plan=path, failover=True)


def test_a_bundle_has_an_entry_for_each_device(bundle: Bundle) -> None:
    plan = bundle.manifest.plan
    assert [(stage.name, stage.device, stage.turn.place, stage.turn.of) for stage in plan.stages] == [
        ("s0", "d0", 0, 1),
        ("s1@d1", "d1", 0, 3),
        ("s1@d2", "d2", 1, 3),
        ("s1@d3", "d3", 2, 3),
        ("s2", "d0", 0, 1),
    ]
    first, other, third = (stage for stage in plan.stages if stage.turn.of == 3)
    assert first.library == third.library, "equal targets share code"
    assert first.library != other.library
    assert first.weight_files == other.weight_files == third.weight_files
    size = sum(path.stat().st_size for path in bundle.root.glob("weights/*"))
    assert 3 * WEIGHTS < size < 3.2 * WEIGHTS, "weights are stored once"
    assert yaml.safe_load((bundle.root / "plan.yaml").read_text())["placement"].popitem()[1] == "d0"
    assert plan.round == 3
    facts = json.loads((bundle.root / "report.json").read_text())
    assert [stage["devices"] for stage in facts["stages"]] == [["d0"], ["d1", "d2", "d3"], ["d0"]]
    slowest_s = max(stage.predicted_compute_s for stage in (first, other, third))
    assert facts["stages"][1]["compute_s"] == pytest.approx(slowest_s), "the slowest of them"
    assert "[d1, d2, d3]" in (bundle.root / "report.html").read_text()


def test_every_plan_of_a_bundle_computes_the_same(bundle: Bundle) -> None:
    reference = Reference(chain(3, 64).SerializeToString())
    samples = random_samples(bundle.manifest, 4, seed=0)
    assert [plan.lost for plan in bundle.manifest.plans] == [None, "d0", "d1", "d2", "d3"]
    for plan in bundle.manifest.plans:
        assert plan.lost not in plan.devices
        with run_in_process(bundle, plan) as pipe:
            for sample, result in zip(samples, pipe.stream(samples), strict=True):
                assert reference.compare(result, sample).equal


def test_others_take_the_turns_of_a_lost_device(tmp_path: Path) -> None:
    """All of a model on two equal devices in turn: without one, what the other has already is as good as anything."""
    model = save(chain(2, 64), tmp_path)
    cluster = cluster_of(2)
    path = tmp_path / "plan.yaml"
    names = driver.front(model).graph.by_name()
    path.write_text("placement:\n" + "".join(f"  {name}: [d0, d1]\n" for name in names))
    state = driver.plan(driver.front(model), cluster, BuildOptions(plan=path, failover=True))
    assert [(spare.lost, spare.plan.origin) for spare in state.spares] == [("d0", "fewer turns"), ("d1", "fewer turns")]
    assert [stage.devices for stage in state.spares[0].plan.stages] == [("d1",)]
    enter_s, byte_s = state.costs.entry_s["d0"]
    alone_s = sum(state.costs.latency_s["d0"]) + enter_s + byte_s * 4 * 64 * 4
    assert state.plan.loads["d0"].busy_s == pytest.approx(alone_s / 2)
