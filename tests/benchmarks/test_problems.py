"""Problems from models: operators and primitives must describe the same work."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.described import GIGABIT, WIFI, Kind, described
from benchmarks.problems import Fused, fuse, fused_problem, operator_problem
from tests.models import branchy
from tvmpipe.passes.objectives.throughput import OBJECTIVE as THROUGHPUT
from tvmpipe.passes.placement.throughput.period import loads
from tvmpipe.targets.description.cluster import HEAD


@pytest.fixture(scope="module")
def model() -> Fused:
    return fuse(branchy())


def test_operators_of_a_primitive_share_its_time_weights_and_tensors(model: Fused) -> None:
    cluster = described([Kind("pi4"), Kind("x86-64-v3")])
    whole, parts = (make(model, cluster, THROUGHPUT) for make in (fused_problem, operator_problem))
    assert parts.node_count > whole.node_count
    number = {primitive.index: node for node, primitive in enumerate(model.graph.by_name().values())}
    owner = [number[model.owner[operator.index]] for operator in model.operators.by_name().values()]
    for of_whole, of_parts in ((whole.time_s, parts.time_s), (whole.weight_bytes, parts.weight_bytes)):
        total = np.zeros_like(of_whole)
        np.add.at(total, owner, of_parts)
        assert total == pytest.approx(of_whole)
    # Placed alike they move the same bytes: nothing that fusion keeps inside a primitive crosses a link.
    placed = [node % 2 for node in range(whole.node_count)]
    ours = loads(whole, placed)
    theirs = loads(parts, [placed[node] for node in owner])
    assert theirs.period_s == pytest.approx(ours.period_s)
    assert theirs.links == pytest.approx(ours.links)


def test_links_between_kinds_hold_for_the_head_too() -> None:
    cluster = described([Kind("pi4", 2), Kind("pi5")], GIGABIT, {(0, 1): WIFI}, head_at=1)
    first, second, third = (device.name for device in cluster.devices)
    assert cluster.link(first, second) == GIGABIT
    assert cluster.link(third, first) == cluster.link(HEAD, second) == WIFI
    assert cluster.link(HEAD, third) == GIGABIT
