"""A model as a placement problem costs what the compiler's own price says."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.models import branchy
from tvmpipe.passes import driver
from tvmpipe.passes.objectives.throughput import OBJECTIVE as THROUGHPUT
from tvmpipe.passes.placement.throughput.period import loads
from tvmpipe.passes.planning.evaluate import price
from tvmpipe.passes.planning.problem_from_graph import problem_from_graph
from tvmpipe.targets.description.cluster import HEAD, Link, parse_cluster


def test_the_period_of_random_placements_is_the_price() -> None:
    """Without latencies, of which the price counts one a message and the problem one a link, nor costs of stages."""
    cluster = replace(
        parse_cluster("".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(3))),
        links={frozenset(("d0", "d1")): Link(1e6, 0.0), frozenset(("d2", HEAD)): Link(5e5, 0.0)},
        network=Link(1e7, 0.0),
    )
    state = driver.plan(driver.front(branchy()), cluster)
    costs = replace(state.costs, entry_s={})
    problem = problem_from_graph(state.graph, costs, cluster, THROUGHPUT, {})
    generator = random.Random(0)
    periods = set()
    for _ in range(50):
        device_of = [generator.randrange(3) for _ in problem.names]
        placement = {name: (f"d{device}",) for name, device in zip(problem.names, device_of, strict=True)}
        priced = price(state.graph, costs, cluster, placement, THROUGHPUT)
        found = loads(problem, device_of)
        assert found.period_s == pytest.approx(priced.period_s)
        for number, name in enumerate(problem.devices):
            assert found.compute_s[number] == pytest.approx(priced.loads[name].compute_s if name in priced.loads else 0)
        periods.add(found.period_s)
    assert len(periods) > 5
