"""The planner of latency against enumeration, on random problems."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.passes.placement.oracle import makespan_milp
from tests.passes.placement.oracle.makespan import faults, feasible, problems, shorter
from tvmpipe.passes.placement.exact.engine import Engine
from tvmpipe.passes.placement.exact.task import Task
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.latency.instance import read
from tvmpipe.passes.placement.latency.search import least_makespan
from tvmpipe.passes.placement.limits import Deadline, Limits
from tvmpipe.passes.placement.problem import Problem, Solution, Tensor


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as started:
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


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems(largest=5))
def test_the_program_finds_the_same(engine: Engine, problem: Problem) -> None:
    solution = proven_best(problem, engine)
    if solution is not None:
        agree(problem, solution, engine)


@pytest.mark.parametrize("seed", range(3))
def test_the_program_finds_the_same_of_what_is_too_much_to_enumerate(engine: Engine, seed: int) -> None:
    problem = wide(11, 3, seed)
    solution = least_makespan(problem, Limits(60.0), engine=engine)
    assert faults(problem, solution) == []
    assert solution.proven
    agree(problem, solution, engine)


def agree(problem: Problem, solution: Solution, engine: Engine) -> None:
    """Program and CP-SAT find a solution's figure, asked for what is worse by half and without a start."""
    cutoff_s = solution.figure_s * 1.5 + 1
    task = Task(read(problem), cutoff_s, 60.0)
    for answer in (makespan_milp.solve(task), *engine.solve([task], Deadline(60.0))):
        assert answer.table is not None
        assert answer.table.makespan == pytest.approx(solution.figure_s, rel=1e-6, abs=1e-6)
        assert answer.bound_s == pytest.approx(solution.figure_s, rel=1e-5, abs=1e-5 * cutoff_s)
        assert answer.bound_s <= solution.figure_s * (1 + 1e-9)


def test_large_problems_end_in_time_with_a_schedule_and_a_bound() -> None:
    problem = wide(500, 6, 0)
    seen: list[float] = []
    solution = least_makespan(problem, Limits(6.0), lambda progress: seen.append(progress.figure_s))
    assert faults(problem, solution) == []
    assert 0 < solution.bound_s <= solution.figure_s
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(solution.figure_s)


def test_one_seed_one_answer(engine: Engine) -> None:
    problem = wide(14, 3, 1)
    first, second = (least_makespan(problem, Limits(60.0, seed=3), engine=engine) for _ in range(2))
    assert first == second


def test_what_cannot_be_held_is_refused() -> None:
    problem = wide(6, 2, 2)
    problem.memory_bytes[:] = 1.0
    with pytest.raises(Infeasible):
        least_makespan(problem, Limits(5.0))
