"""Groups of devices that take samples in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.checker import check
from tests.passes.placement.brute import placements
from tests.passes.placement.problems import problems
from tests.passes.placement.test_period_programs import chain_problem
from tvmpipe.passes.placement.limits import Deadline, Limits
from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.passes.placement.solve import solve
from tvmpipe.passes.placement.throughput.period import loads
from tvmpipe.passes.placement.throughput.period_bounds import period_bound_in_turn
from tvmpipe.passes.placement.throughput.replicas import grouped, least_period_replicated, period_in_turn


def test_a_group_is_as_many_times_as_fast_as_its_slowest_member() -> None:
    problem = replace(chain_problem(2, [1.0, 2.0, 4.0], [1.0]), memory_bytes=np.array([9.0, 7.0, 8.0]))
    small = grouped(problem, [(0, 1), (2,)])
    assert small.devices == ("d0+d1", "d2")
    assert small.time_s.tolist() == [[1.0, 4.0], [1.0, 4.0]]
    assert small.memory_bytes.tolist() == [7.0, 8.0]
    with pytest.raises(ValueError, match="one group"):
        grouped(problem, [(0, 1)])


def test_links_between_groups_carry_what_members_do() -> None:
    problem = replace(chain_problem(2, [1.0] * 5, [1.0]), latency_s=np.full((6, 6), 0.5))
    small = grouped(problem, [(0, 1), (2, 3, 4)])
    # Of six samples each of the six pairs carries one: 0.25 s of bytes, a sixth of it a sample, and no latency.
    assert loads(small, (0, 1)).links[0, 1] == pytest.approx(0.25 / 6)
    assert small.latency_s[0, 1] == 0.5
    port = grouped(replace(problem, contention="port"), [(0, 1), (2, 3, 4)])
    # A sender carries every second sample, a receiver every third: the sender's port is the busier.
    assert loads(port, (0, 1)).links[0, 1] == pytest.approx(0.25 / 2)


def test_two_samples_in_turn_by_simulation() -> None:
    """Round robin by hand: the busiest link of members over many samples is what the groups' link says."""
    problem = chain_problem(2, [1.0] * 6, [1.0])
    for groups in [((0, 1), (2, 3, 4, 5)), ((0, 1, 2), (3, 4, 5)), ((0, 1), (2, 3, 4), (5,))]:
        samples = 60
        carried: dict[tuple[int, int], float] = {}
        for sample in range(samples):
            ends = groups[0][sample % len(groups[0])], groups[1][sample % len(groups[1])]
            carried[ends] = carried.get(ends, 0.0) + problem.transfer_s(problem.tensors[0], *ends)
        expected = max(carried.values()) / samples
        assert loads(grouped(problem, groups), (0, 1)).links[0, 1] == pytest.approx(expected)


def test_a_node_that_cannot_be_divided_is_replicated() -> None:
    problem = replace(chain_problem(3, [1.0] * 4, [1.0, 6.0, 1.0]), contiguous=True)
    alone = solve(problem, Limits(10.0))
    assert alone.figure_s == pytest.approx(6.0)
    found, groups = least_period_replicated(problem, Limits(10.0))
    assert found.figure_s == pytest.approx(2.0)  # 8 s of work on 4 devices
    assert loads(grouped(problem, groups), found.device_of).period_s == pytest.approx(found.figure_s)
    assert sorted(device for group in groups for device in group) == [0, 1, 2, 3]


def test_memory_that_copies_do_not_fit_keeps_devices_apart() -> None:
    problem = chain_problem(2, [1.0, 1.0], [1.0])
    mib = 2.0**20
    problem = replace(problem, weight_bytes=np.full(2, mib), memory_bytes=np.full(2, 1.5 * mib))
    found, groups = least_period_replicated(problem, Limits(10.0))
    assert groups == ((0,), (1,))
    assert found.figure_s == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(problem=problems(models=("overlapped", "summed")), data=st.data())
def test_a_round_of_turns_takes_no_longer_than_the_groups_say(problem: Problem, data: st.DataObject) -> None:
    """And exactly as long where members and links are equal, with a link for each pair."""
    count = problem.device_count
    problem = replace(
        problem, time_s=np.where(np.isfinite(problem.time_s), problem.time_s, 7.0), free=np.zeros(count, bool)
    )
    split = data.draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count))
    groups = tuple(tuple(d for d in range(count) if split[d] == one) for one in sorted(set(split)))
    where = st.integers(0, len(groups) - 1)
    device_of = data.draw(st.lists(where, min_size=problem.node_count, max_size=problem.node_count))
    said = loads(grouped(problem, groups), device_of).period_s
    assert period_in_turn(problem, groups, device_of) <= said * (1 + 1e-9)
    same = replace(
        problem,
        time_s=np.repeat(problem.time_s[:, :1], count, axis=1),
        tensors=tuple(replace(tensor, seconds=None) for tensor in problem.tensors),
        bandwidth_bps=np.full_like(problem.bandwidth_bps, 2.0),
        latency_s=np.full_like(problem.latency_s, 0.5),
        model="overlapped",
        contention="pair",
    )
    assert period_in_turn(same, groups, device_of) == pytest.approx(loads(grouped(same, groups), device_of).period_s)


def test_pins_may_keep_a_node_off_every_group() -> None:
    problem = chain_problem(3, [1.0, 1.0], [1.0, 1.0])
    problem.time_s[:, 1] = np.inf
    solution, groups = least_period_replicated(problem, Limits(5.0))
    assert groups == ((0,), (1,))
    assert set(solution.device_of) == {0}


def partitions(items: Sequence[int]) -> Iterator[list[tuple[int, ...]]]:
    """Every way to put things in groups."""
    if not items:
        yield []
        return
    first, *others = items
    for rest in partitions(others):
        yield [(first,), *rest]
        for place, group in enumerate(rest):
            yield [*rest[:place], (first, *group), *rest[place + 1 :]]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(problem=problems(models=("overlapped", "summed"), max_nodes=4, max_devices=4))
def test_no_grouping_is_below_the_bound(problem: Problem) -> None:
    """Every grouping with every placement on it; each period as the checker counts it."""
    figures = [
        check(problem, Solution(tuple(device_of), 0.0, 0.0, ""), groups).figure_s
        for groups in partitions(range(problem.device_count))
        for device_of in placements(grouped(problem, groups)).tolist()
    ]
    assume(figures)
    bound_s = period_bound_in_turn(problem, Deadline(10.0))
    assert bound_s <= min(figures) * (1 + 1e-9)
    solution, _ = least_period_replicated(problem, Limits(0.5))
    assert solution.bound_s <= min(figures) * (1 + 1e-9)
    assert min(figures) <= solution.figure_s * (1 + 1e-9)


def test_the_bound_is_met_where_work_divides_evenly() -> None:
    problem = chain_problem(3, [1.0] * 4, [1.0, 6.0, 1.0])
    assert period_bound_in_turn(problem, Deadline(10.0)) == pytest.approx(2.0)
    solution, _ = least_period_replicated(problem, Limits(10.0))
    assert solution.bound_s == pytest.approx(2.0)
    assert solution.proven
    pinned = problem.time_s.copy()
    pinned[1, 1:] = np.inf
    assert period_bound_in_turn(replace(problem, time_s=pinned), Deadline(10.0)) == pytest.approx(6.0)
    mib = 2.0**20
    tight = replace(problem, weight_bytes=np.array([0.0, mib, 0.0]), memory_bytes=np.array([2.0, 2.0, 0.5, 0.5]) * mib)
    assert period_bound_in_turn(tight, Deadline(10.0)) == pytest.approx(3.0), "only two devices hold the large one"
    full = replace(problem, memory_bytes=np.zeros(4), weight_bytes=np.ones(3))
    assert period_bound_in_turn(full, Deadline(10.0)) == 0.0
