"""Which links encode what they carry, and what that is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.models import chain, two_branches
from tvmpipe.manifest import Encoding
from tvmpipe.passes import driver
from tvmpipe.passes.driver import Planned
from tvmpipe.passes.graph.routes import encoded_bytes
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.plan import Plan
from tvmpipe.targets.description.cluster import HEAD, Cluster, Link, parse_cluster
from tvmpipe.tensors import TensorSpec

TENSOR = 4 * 256 * 4  # every tensor of `chain`
PINS = {"00[01].*": "d0", "00[23].*": "d1", "00[45].*": "d2"}
FAST = Link(1e9, 1e-6)


def cluster_of(links: dict[tuple[str, str], Link], devices: int = 3) -> Cluster:
    """Devices d0, d1, ... on fast links but for those given."""
    cluster = parse_cluster("".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(devices)))
    names = [HEAD, *(device.name for device in cluster.devices)]
    every = {frozenset((a, b)): FAST for a in names for b in names if a != b}
    return replace(cluster, links={**every, **{frozenset(ends): link for ends, link in links.items()}})


def plan_of(cluster: Cluster, compress: Encoding) -> tuple[Plan, Planned]:
    state = driver.plan(driver.front(chain()), cluster, BuildOptions(pins=PINS, compress=compress))
    return state.plan, state


def encodings(plan: Plan) -> dict[tuple[str, str], Encoding]:
    return {(link.sender, link.receiver): link.encoding for link in plan.links if link.encoding != "none"}


@pytest.mark.parametrize(("encoding", "shrinks"), [("fp16", 2), ("int8", 4)])
def test_the_slow_link_is_encoded(encoding: Encoding, shrinks: int) -> None:
    cluster = cluster_of({("d0", "d1"): Link(1e6, 1e-5)})
    plain, _ = plan_of(cluster, "none")
    assert encodings(plain) == {}
    assert plain.bottleneck == ("d0", "d1")
    plan, state = plan_of(cluster, encoding)
    assert encodings(plan) == {("d0", "d1"): encoding}
    assert plan.period_s == pytest.approx(TENSOR / shrinks / 1e6)
    assert plain.period_s - plan.period_s == pytest.approx(plain.latency_s - plan.latency_s)
    assert plan.bound_s is None
    assert plan.loads["d1"].receive_bytes == TENSOR // shrinks
    assert any(
        f"the link from d0 to d1 bounds the period; its float32 tensors travel as {encoding}" in n for n in state.notes
    )


def test_one_link_after_another() -> None:
    """The second slowest is encoded as well once it bounds the period, the third is not slow enough."""
    links = {("d0", "d1"): Link(1e6, 0.0), ("d1", "d2"): Link(1.5e6, 0.0), (HEAD, "d0"): Link(3e6, 0.0)}
    plan, state = plan_of(cluster_of(links), "fp16")
    assert encodings(plan) == {("d0", "d1"): "fp16", ("d1", "d2"): "fp16"}
    assert plan.period_s == pytest.approx(TENSOR / 2 / 1e6)
    assert len([note for note in state.notes if "bounds the period" in note]) == 2


def test_a_link_that_only_has_a_latency_is_left_alone() -> None:
    plan, state = plan_of(cluster_of({("d0", "d1"): Link(1e9, 0.01)}), "int8")
    assert len(plan.bottleneck) == 1, "more samples at once hide it"
    late, state = plan_of(cluster_of({("d0", "d1"): Link(1e9, 60.0)}), "int8")
    assert late.bottleneck == (), "as many would have no place"
    assert encodings(late) == {}
    assert encodings(plan) == {}
    assert state.notes == ()


def test_where_a_device_is_the_bottleneck_nothing_is_encoded() -> None:
    state = driver.plan(driver.front(two_branches()), cluster_of({}, 2), BuildOptions(compress="fp16"))
    assert len(state.plan.bottleneck) == 1
    assert encodings(state.plan) == {}
    assert state.plan.bound_s is not None


def test_only_float32_shrinks() -> None:
    for dtype, size in (("float32", 8), ("float64", 32), ("int64", 32), ("float16", 8), ("bool", 4)):
        assert encoded_bytes(TensorSpec(name="t", shape=(4,), dtype=dtype), "fp16") == size
