"""A plan's own period and latency, by simulation of its stages."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.checker import check
from tests.models import branchy
from tvmpipe.passes import driver
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.place import follow
from tvmpipe.passes.planning.plan import read_placement
from tvmpipe.passes.planning.problem_from_plan import stage_problem
from tvmpipe.passes.simulation import simulate
from tvmpipe.targets.description.cluster import HEAD, Link, parse_cluster


def test_a_simulated_plan_takes_what_it_should(tmp_path: Path) -> None:
    """Random placements, links of all speeds: the period of a full pipeline, and of one sample the latency."""
    cluster = replace(
        parse_cluster("".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(3))),
        links={frozenset(("d0", "d1")): Link(1e6, 0.002), frozenset(("d2", HEAD)): Link(5e5, 0.001)},
    )
    generator = random.Random(1)
    fused = driver.front(branchy())
    names = list(fused.graph.by_name())
    stages = set()
    for number in range(8):
        path = tmp_path / f"{number}.yaml"
        lines = "\n".join(f"  {name}: d{generator.randrange(3)}" for name in names)
        path.write_text(f"placement:\n{lines}\n")
        state = driver.plan(fused, cluster, BuildOptions(plan=path))
        stages.add(len(state.plan.stages))
        problem, solution, groups = stage_problem(fused.graph, state.costs, cluster, state.plan)
        full = simulate(problem, solution, samples=200, groups=groups)
        assert full.period_s == pytest.approx(state.plan.period_s, rel=1e-3)
        one = simulate(problem, solution, samples=1, groups=groups)
        assert one.latency_s == pytest.approx(state.plan.latency_s)
        noisy = simulate(problem, solution, samples=200, jitter=0.3, groups=groups)
        assert noisy.period_s != full.period_s
        assert noisy.period_s > 0.9 * full.period_s
    assert len(stages) > 1


def test_a_simulated_plan_with_turns_has_its_period(tmp_path: Path) -> None:
    """Random groups of unequal devices behind unequal links: the mean of a round is the plan's period."""
    cluster = replace(
        parse_cluster("".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(6))),
        links={frozenset(("d0", "d3")): Link(1e6, 0.002), frozenset(("d2", HEAD)): Link(5e5, 0.001)},
    )
    planned = driver.plan(driver.front(branchy()), cluster)
    graph, costs = planned.graph, planned.costs
    slower = {name: tuple(s * (1 + i / 3) for s in costs.latency_s[name]) for i, name in enumerate(costs.latency_s)}
    costs = replace(costs, latency_s=slower)
    names = list(graph.by_name())
    generator = random.Random(4)
    rounds = set()
    for number in range(8):
        order = generator.sample(range(6), 6)
        cuts = sorted(generator.sample(range(1, 6), generator.randrange(1, 4)))
        places = [[f"d{i}" for i in order[a:b]] for a, b in zip([0, *cuts], [*cuts, 6], strict=True)]
        path = tmp_path / f"{number}.yaml"
        path.write_text("placement:\n" + "".join(f"  {n}: [{', '.join(generator.choice(places))}]\n" for n in names))
        placement = read_placement(path, graph, cluster, planned.signature.sha256)
        found = follow(placement, graph, costs, cluster, BuildOptions())
        problem, solution, groups = stage_problem(graph, costs, cluster, found)
        full = simulate(problem, solution, samples=1200, groups=groups)
        rounds.add(full.round)
        # What is cut off at both ends of the second half is less than a round of 600 samples or so.
        assert full.period_s == pytest.approx(found.period_s, rel=3e-3)
        assert check(problem, solution, groups).faults == ()
        assert simulate(problem, solution, samples=1, groups=groups).latency_s <= found.latency_s * (1 + 1e-9)
    assert len(rounds) > 2
