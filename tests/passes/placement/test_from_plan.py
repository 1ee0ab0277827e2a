"""A plan's own period and latency, by simulation of its stages."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models import branchy
from tvmpipe.build import prepare
from tvmpipe.errors import PlanError
from tvmpipe.passes.pipeline import PLAN, run_passes
from tvmpipe.passes.placement.from_plan import stage_problem
from tvmpipe.simulate import simulate
from tvmpipe.targets.cluster import HEAD, Link, parse_cluster


def test_a_simulated_plan_takes_what_it_should(tmp_path: Path) -> None:
    """Random placements, links of all speeds: the period of a full pipeline, and of one sample the latency."""
    cluster = replace(
        parse_cluster("".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(3))),
        links={frozenset(("d0", "d1")): Link(1e6, 0.002), frozenset(("d2", HEAD)): Link(5e5, 0.001)},
    )
    generator = random.Random(1)
    front = run_passes(prepare(branchy(), cluster), PLAN)
    assert front.graph is not None
    names = list(front.graph.by_name())
    stages = set()
    for number in range(8):
        path = tmp_path / f"{number}.yaml"
        lines = "\n".join(f"  {name}: d{generator.randrange(3)}" for name in names)
        path.write_text(f"placement:\n{lines}\n")
        state = run_passes(replace(front, options=replace(front.options, plan_file=path)), PLAN[2:])
        assert state.plan is not None
        assert state.costs is not None
        stages.add(len(state.plan.stages))
        problem, solution = stage_problem(front.graph, state.costs, cluster, state.plan)
        full = simulate(problem, solution, samples=200)
        assert full.period_s == pytest.approx(state.plan.period_s, rel=1e-3)
        one = simulate(problem, solution, samples=1)
        assert one.latency_s == pytest.approx(state.plan.latency_s)
        noisy = simulate(problem, solution, samples=200, jitter=0.3)
        assert noisy.period_s != full.period_s
        assert noisy.period_s > 0.9 * full.period_s
    assert len(stages) > 1


def test_turns_are_refused(tmp_path: Path) -> None:
    cluster = parse_cluster("".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(2)))
    front = run_passes(prepare(branchy(), cluster), PLAN)
    assert front.graph is not None
    path = tmp_path / "plan.yaml"
    path.write_text("placement:\n" + "\n".join(f"  {name}: [d0, d1]" for name in front.graph.by_name()) + "\n")
    state = run_passes(replace(front, options=replace(front.options, plan_file=path)), PLAN[2:])
    assert state.plan is not None
    assert state.costs is not None
    with pytest.raises(PlanError, match="take turns"):
        stage_problem(front.graph, state.costs, cluster, state.plan)
