"""The planner of latency against enumeration, on random problems."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.passes.placement.makespan_oracle import faults, feasible, problems, shorter
from tvmpipe.passes.placement.exact.makespan import Engine
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.latency.search import least_makespan
from tvmpipe.passes.placement.limits import Limits
from tvmpipe.passes.placement.problem import Problem, Solution, Tensor

ENGINES = [
    "milp",
    pytest.param(
        "cpsat", marks=pytest.mark.skipif(importlib.util.find_spec("ortools") is None, reason="ortools not installed")
    ),
]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(request.param) as started:
        yield started


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems())
def test_it_is_the_best_of_all(engine: Engine, problem: Problem) -> None:
    proven_best(problem, engine)


def proven_best(problem: Problem, engine: Engine) -> Solution | None:
    """What an engine finds, which must be as good as anything; None where there is nothing to find."""
    if not feasible(problem):
        with pytest.raises(Infeasible):
            least_makespan(problem, Limits(20.0), engine=engine)
        return None
    solution = least_makespan(problem, Limits(20.0), engine=engine)
    assert faults(problem, solution) == []
    assert solution.proven
    assert shorter(problem, solution.figure_s) >= solution.figure_s * (1 - 1e-6)
    return solution


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems(largest=8, tight=False))
def test_eight_nodes(engine: Engine, problem: Problem) -> None:
    solution = least_makespan(problem, Limits(20.0), engine=engine)
    assert faults(problem, solution) == []
    assert solution.proven
    assert shorter(problem, solution.figure_s) >= solution.figure_s * (1 - 1e-6)


def wide(count: int, devices: int, seed: int) -> Problem:
    """Layers of a few nodes that read some of the layer before."""
    rng = np.random.default_rng(seed)
    tensors = []
    for node in range(count):
        readers = [r for r in range(node + 1, min(count, node + 8)) if rng.random() < 0.3]
        if readers:
            tensors.append(Tensor(node, tuple(readers), float(rng.integers(0, 4))))
    return Problem(
        names=tuple(map(str, range(count))),
        devices=tuple(map(str, range(devices))),
        time_s=rng.integers(1, 10, (count, devices)).astype(float),
        weight_bytes=rng.integers(1, 5, count).astype(float),
        working_bytes=np.zeros(count),
        memory_bytes=np.full(devices, 3.5 * count / devices),
        tensors=(Tensor(None, (0,), 1.0), *tensors, Tensor(count - 1, (), 1.0, to_head=True)),
        bandwidth_bps=np.ones((devices + 1, devices + 1)),
        latency_s=np.full((devices + 1, devices + 1), 0.5),
        model="makespan",
        contention="port",
    )


def test_large_problems_end_in_time_with_a_schedule_and_a_bound() -> None:
    problem = wide(500, 6, 0)
    seen: list[float] = []
    solution = least_makespan(problem, Limits(6.0), lambda progress: seen.append(progress.figure_s))
    assert faults(problem, solution) == []
    assert 0 < solution.bound_s <= solution.figure_s
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(solution.figure_s)


def test_one_seed_one_answer() -> None:
    problem = wide(14, 3, 1)
    with Engine("milp") as engine:
        first, second = (least_makespan(problem, Limits(60.0, seed=3), engine=engine) for _ in range(2))
    assert first == second


def test_what_cannot_be_held_is_refused() -> None:
    problem = wide(6, 2, 2)
    problem.memory_bytes[:] = 1.0
    with pytest.raises(Infeasible):
        least_makespan(problem, Limits(5.0))
