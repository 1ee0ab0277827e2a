"""Nodes that may always follow a neighbour, against trying everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.passes.placement.brute import least_period, periods, placements
from tests.passes.placement.problems import problems
from tests.passes.placement.test_period_programs import chain_problem
from tvmpipe.passes.placement.limits import Limits
from tvmpipe.passes.placement.problem import Contention, Model, Problem, Shared, Tensor
from tvmpipe.passes.placement.reduce.dominated import without_dominated_splits
from tvmpipe.passes.placement.reduce.presolve import grouped_nodes, presolve
from tvmpipe.passes.placement.solve import solve


@st.composite
def light_nodes(draw: st.DrawFn) -> Problem:
    """Problems in which many nodes take next to no time, hold nothing, or have large tensors beside them."""
    problem = draw(problems(models=("overlapped", "summed"), max_nodes=6))
    nodes = st.lists(st.booleans(), min_size=problem.node_count, max_size=problem.node_count)
    light, empty = np.array(draw(nodes)), np.array(draw(nodes))
    time_s = np.where(light[:, None] & np.isfinite(problem.time_s), 0.0, problem.time_s)
    ends = problem.device_count + 1
    equal_links = draw(st.booleans())
    full = [tuple(node for node in one.nodes if not empty[node]) for one in problem.shared]
    large = [draw(st.sampled_from([1.0, 1.0, 8.0])) for _ in problem.tensors]
    return replace(
        problem,
        time_s=time_s,
        weight_bytes=np.where(empty, 0.0, problem.weight_bytes),
        working_bytes=np.where(empty, 0.0, problem.working_bytes),
        shared=tuple(
            Shared(nodes, one.size_bytes) for nodes, one in zip(full, problem.shared, strict=True) if len(nodes) > 1
        ),
        tensors=tuple(
            replace(
                tensor,
                size_bytes=tensor.size_bytes * much,
                seconds=None if tensor.seconds is None or equal_links else tensor.seconds * much,
            )
            for tensor, much in zip(problem.tensors, large, strict=True)
        ),
        bandwidth_bps=np.full((ends, ends), 2.0) if equal_links else problem.bandwidth_bps,
        latency_s=np.zeros((ends, ends)) if draw(st.booleans()) else problem.latency_s,
    )


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(light_nodes())
def test_every_placement_has_one_with_the_nodes_together_that_is_no_worse(problem: Problem) -> None:
    every = placements(problem)
    assume(len(every) > 0)
    small = grouped_nodes(problem)
    small = small.then(without_dominated_splits(small.problem))
    lowered = [small.lower(device_of) for device_of in every.tolist()]
    assert all(one is not None for one in lowered)
    lifted = np.array([small.lift(one or ()) for one in lowered])
    assert {tuple(one) for one in lifted.tolist()} <= {tuple(one) for one in every.tolist()}
    assert (periods(problem, lifted) <= periods(problem, every) * (1 + 1e-9)).all()


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(light_nodes())
def test_the_least_period_stays_after_presolve(problem: Problem) -> None:
    best = least_period(problem)
    assume(best is not None)
    assert best is not None
    small = grouped_nodes(problem)
    small = small.then(presolve(small.problem, best.figure_s))
    small = small.then(without_dominated_splits(small.problem))
    left = least_period(small.problem)
    assert left is not None
    assert left.figure_s == pytest.approx(best.figure_s, rel=1e-9, abs=1e-12)
    assert small.lower(best.device_of) is not None


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(light_nodes())
def test_the_planner_still_finds_the_best(problem: Problem) -> None:
    best = least_period(problem)
    assume(best is not None)
    assert best is not None
    found = solve(problem, Limits(20.0))
    assert found.figure_s == pytest.approx(best.figure_s, rel=1e-6, abs=1e-9)
    assert found.proven


def parts(problem: Problem) -> tuple[tuple[int, ...], ...]:
    return without_dominated_splits(problem).parts


def three(model: Model, contention: Contention = "pair", seconds: float = 0.0, **changes: object) -> Problem:
    """a, v, b in a row on three devices; a large tensor to v and a small one from it."""
    problem = replace(chain_problem(3, [1.0] * 3, [5.0, seconds, 5.0]), model=model, contention=contention)
    problem = replace(problem, tensors=(Tensor(0, (1,), 4.0), Tensor(1, (2,), 1.0)))
    return replace(problem, **changes)  # type: ignore[arg-type]


def test_a_node_follows_what_feeds_it_more_than_it_passes_on() -> None:
    assert parts(three("summed", seconds=3.0)) == ((0, 1), (2,))  # 3 s and a tensor of 1 s against one of 4 s
    assert parts(three("summed", seconds=3.5)) == ((0,), (1,), (2,))
    assert parts(three("overlapped", "port")) == ((0, 1), (2,))
    assert parts(three("overlapped", "port", seconds=0.5)) == ((0,), (1,), (2,))  # its device may be the slowest


def test_a_node_follows_what_reads_from_it() -> None:
    back = (Tensor(0, (1,), 1.0), Tensor(1, (2,), 4.0))
    assert parts(three("summed", seconds=3.0, tensors=back)) == ((0,), (1, 2))


def test_a_link_of_its_own_may_be_worth_a_way_round() -> None:
    """With a link for each pair, v may carry on to where a's own link is busy or slow."""
    assert parts(three("overlapped")) == ((0,), (1,), (2,))
    slow = np.ones((4, 4))
    slow[0, 2] = 0.125
    assert parts(three("summed", seconds=1.0, bandwidth_bps=slow)) == ((0,), (1,), (2,))
    two = replace(chain_problem(3, [1.0] * 2, [5.0, 0.0, 5.0]), tensors=three("summed").tensors)
    assert parts(two) == ((0, 1), (2,))  # two devices have no way round


def test_latencies_keep_no_node_apart() -> None:
    close = (Tensor(0, (1,), 4.0), Tensor(1, (2,), 3.75))
    assert parts(three("overlapped", "port", tensors=close)) == ((0, 1), (2,))
    late = np.full((4, 4), 0.5)
    assert parts(three("overlapped", "port", tensors=close, latency_s=late)) == ((0, 1), (2,))


def test_pins_memory_and_stages_keep_a_node_where_it_is() -> None:
    apart = ((0,), (1,), (2,))
    pinned = three("summed", seconds=1.0).time_s
    pinned[1, 0] = np.inf
    assert parts(three("summed", time_s=pinned)) == apart
    assert parts(three("summed", seconds=1.0, weight_bytes=np.ones(3), memory_bytes=np.full(3, 2.0))) == apart
    assert parts(three("summed", seconds=1.0, weight_bytes=np.ones(3), memory_bytes=np.full(3, 3.0))) != apart
    assert (
        parts(three("summed", seconds=1.0, working_bytes=np.array([0, 1.0, 0]), memory_bytes=np.ones(3) * 0.5)) == apart
    )
    joined = (Tensor(0, (2,), 4.0), Tensor(1, (2,), 1.0))
    light = np.outer([5.0, 5.0, 0.0], np.ones(3))
    free = three("summed", tensors=joined, time_s=light)
    assert parts(free) == ((0, 2), (1,))
    assert parts(replace(free, contiguous=True)) == apart  # two feed it, and stages must keep an order


def test_free_devices_gain_nothing_by_sending_less() -> None:
    hosted = three("summed", seconds=1.0, free=np.array([True, False, False]))
    assert parts(hosted) == ((0,), (1,), (2,))
    assert parts(replace(hosted, time_s=three("summed").time_s)) == ((0, 1), (2,))


def test_followers_of_followers_come_along() -> None:
    chain = replace(chain_problem(6, [1.0, 2.0, 1.0], [5.0, 0.0, 0.0, 0.0, 0.0, 5.0]), model="summed")
    small = without_dominated_splits(chain)
    assert len(small.parts) == 2
    assert small.lower((0, 1, 2, 1, 2, 1)) in {(0, 1)}
