"""The parts of the latency planner: schedules, searches, bounds, pieces, windows."""

from __future__ import annotations

import dataclasses
import random

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale import mixed_problem, random_graph
from tests.passes.placement.oracle.makespan import faults, feasible, problems, shorter
from tvmpipe.passes.placement.exact.engine import Engine
from tvmpipe.passes.placement.exact.task import Task
from tvmpipe.passes.placement.feasible import first_fit
from tvmpipe.passes.placement.latency.ancestor_bounds import with_ancestors
from tvmpipe.passes.placement.latency.coarse_start import coarse_start
from tvmpipe.passes.placement.latency.instance import read
from tvmpipe.passes.placement.latency.large_neighbourhood import window_tasks
from tvmpipe.passes.placement.latency.list_scheduling import by_rank, earliest_task_first, heft, rank_order, upward_rank
from tvmpipe.passes.placement.latency.local_search import anneal
from tvmpipe.passes.placement.latency.path_bounds import windows
from tvmpipe.passes.placement.latency.pieces import cuts, joined, pieces
from tvmpipe.passes.placement.latency.relaxation import relaxation_s
from tvmpipe.passes.placement.latency.schedule import again, build, job_order, solution
from tvmpipe.passes.placement.latency.search import least_makespan
from tvmpipe.passes.placement.latency.sequence import STEP, advanced, decode, sequence, tables
from tvmpipe.passes.placement.latency.shortest_path import shortest_path
from tvmpipe.passes.placement.latency.sweep import sweep
from tvmpipe.passes.placement.latency.window_candidates import Rows, arrays
from tvmpipe.passes.placement.limits import Deadline, Limits
from tvmpipe.passes.placement.problem import Contention, Problem, Tensor


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problem=problems(largest=7).filter(feasible))
def test_schedules_are_sound_and_get_no_longer(problem: Problem) -> None:
    # Lists and first_fit leave the order of stages to the planner.
    problem = dataclasses.replace(problem, contiguous=False)
    inst = read(problem)
    device_of = first_fit(problem)
    table = by_rank(inst, device_of)
    for step in (table, again(inst, device_of, table)):
        assert faults(problem, solution(device_of, step, 0.0, "test")) == []
    assert again(inst, device_of, table).makespan <= table.makespan
    assert build(inst, device_of, job_order(inst, table), table.makespan * 0.5 - 1e-6) is None or not table.makespan
    best = anneal(inst, (device_of, table), Deadline(5), steps=100, seed=1)
    assert faults(problem, solution(*best, 0.0, "test")) == []
    assert best[1].makespan <= table.makespan
    assert anneal(inst, (device_of, table), Deadline(5), steps=100, seed=1) == best


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problem=problems(largest=7).filter(feasible))
def test_lists_and_bounds(problem: Problem) -> None:
    # Lists and first_fit leave the order of stages to the planner.
    problem = dataclasses.replace(problem, contiguous=False)
    inst = read(problem)
    order = rank_order(inst, upward_rank(inst))
    assert all(order.index(earlier) < order.index(job) for job in order for earlier in inst.before[job])
    for device_of in (heft(inst), earliest_task_first(inst)):
        if device_of is not None:
            table = by_rank(inst, device_of)
            assert faults(problem, solution(device_of, table, 0.0, "test")) == []
            assert windows(inst).bound_s <= table.makespan * (1 + 1e-9)
            assert with_ancestors(inst, windows(inst), Deadline(20)).bound_s <= table.makespan * (1 + 1e-9)
            assert relaxation_s(inst, 5.0) <= table.makespan * (1 + 1e-9)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problem=problems(largest=6).filter(feasible))
def test_no_schedule_is_below_the_bound_of_ancestors(problem: Problem) -> None:
    bound_s = with_ancestors(read(problem), windows(read(problem)), Deadline(20)).bound_s
    assert shorter(problem, bound_s) >= bound_s * (1 - 1e-9)


def test_ancestors_that_must_share_a_device_take_turns() -> None:
    # Two nodes feed a third; a transfer lasts longer than both, so that one device does all in turn.
    problem = Problem(
        names=("a", "b", "c"),
        devices=("x", "y"),
        time_s=np.array([[2.0, 2.0], [3.0, 3.0], [1.0, 1.0]]),
        weight_bytes=np.zeros(3),
        working_bytes=np.zeros(3),
        memory_bytes=np.full(2, np.inf),
        tensors=(Tensor(0, (2,), 10.0), Tensor(1, (2,), 10.0)),
        bandwidth_bps=np.ones((3, 3)),
        latency_s=np.zeros((3, 3)),
        model="makespan",
    )
    inst = read(problem)
    reach = windows(inst)
    assert reach.bound_s == pytest.approx(4.0)
    assert with_ancestors(inst, reach, Deadline(20)).bound_s == pytest.approx(6.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problem=problems(largest=8).filter(feasible), seed=st.integers(0, 3))
def test_sequences_and_sweeps_are_sound_and_get_no_longer(problem: Problem, seed: int) -> None:
    problem = dataclasses.replace(problem, contiguous=False)
    inst = read(problem)
    device_of = first_fit(problem)
    start = (list(device_of), by_rank(inst, device_of))
    plain = tables(inst)
    place = [*device_of, *([problem.head] * len(inst.results))]
    found = decode(plain, place, sequence(plain, place, start[1]))
    assert found is not None
    assert found.makespan <= start[1].makespan * (1 + 1e-9)
    # A job's head and tail are on a path of the schedule, and one path is as long as the schedule.
    through = [found.end[n] - inst.times[n][place[n]] + found.tail[n] for n in range(inst.node_count)]
    assert max(through) <= found.makespan * (1 + 1e-9)
    assert inst.results or max(through) >= found.makespan * (1 - 1e-9)
    assert advanced(plain, found).makespan <= found.makespan * (1 + 1e-9)
    best = sweep(arrays(inst, windows(inst)), start, Deadline(20), rounds=4, seed=seed)
    assert best[1].makespan <= start[1].makespan
    assert faults(problem, solution(*best, 0.0, "test")) == []
    assert sweep(arrays(inst, windows(inst)), start, Deadline(20), rounds=4, seed=seed) == best


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problem=problems(largest=8).filter(feasible), most=st.integers(1, 6))
def test_starts_from_coarser_graphs_are_sound(problem: Problem, most: int) -> None:
    problem = dataclasses.replace(problem, contiguous=False)
    inst = read(problem)
    found = coarse_start(inst, most, Deadline(20), 2, 0)
    if found is not None:
        assert inst.fits(found[0])
        assert faults(problem, solution(*found, 0.0, "test")) == []


@pytest.mark.parametrize("contention", ["pair", "port"])
def test_sweeps_shorten_the_schedules_of_a_large_graph(contention: Contention) -> None:
    problem = mixed_problem(random_graph(400, 5), (1, 1, 2, 2), 6, model="makespan", contention=contention)
    inst = read(problem)
    device_of = heft(inst)
    assert device_of is not None
    start = (device_of, by_rank(inst, device_of))
    found = sweep(arrays(inst, windows(inst)), start, Deadline(60), rounds=12, seed=0)
    assert found[1].makespan < start[1].makespan * 0.99
    assert faults(problem, solution(*found, 0.0, "test")) == []


def test_a_row_ends_when_the_whole_sequence_does() -> None:
    problem = mixed_problem(random_graph(300, 2), (1, 1, 1, 1), 3, model="makespan", contention="port")
    inst = read(problem)
    shared = arrays(inst, windows(inst))
    place = [int(device) for device in np.random.default_rng(0).integers(0, 4, 300)]
    table = by_rank(inst, place)
    place += [problem.head] * len(inst.results)
    now = decode(shared.plain, place, sequence(shared.plain, place, table))
    assert now is not None
    jobs = [item for item in now.order if item < inst.job_count]
    kept = np.array([[place[job] for job in jobs]] * 2)
    moved = next(column for column, job in enumerate(jobs) if job == 150)
    kept[1, moved] = (kept[1, moved] + 1) % 4
    late = Rows(shared, now, 0, len(now.marks), jobs, kept.copy(), np.random.default_rng(0)).run(spread=0.0)
    other = list(place)
    other[150] = int(kept[1, moved])
    changed = decode(shared.plain, other, now.order)
    assert changed is not None
    assert late.tolist() == pytest.approx([now.makespan, changed.makespan])
    # A window in the middle of what does not change sees the same makespan in its heads and tails.
    inside = [item for item in now.order[STEP : 3 * STEP] if item < inst.job_count]
    same = np.array([[place[job] for job in inside]] * 2)
    late = Rows(shared, now, 1, 3, inside, same, np.random.default_rng(0)).run(spread=0.0)
    assert max(late) <= now.makespan * (1 + 1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problem=problems(largest=10))
def test_cuts_have_all_other_nodes_before_or_after(problem: Problem) -> None:
    graph = problem.graph
    expected = {
        node for node in graph if len(nx.ancestors(graph, node)) + len(nx.descendants(graph, node)) == len(graph) - 1
    }
    inst = read(problem)
    assert set(cuts(inst)) == expected
    parts = pieces(inst)
    seen = [node for piece in parts for node in piece.nodes[int(piece.entry) :]]
    assert sorted(seen) == sorted(graph)
    assert len(joined(parts, 2)) <= 2


def blocks(number: int, seed: int, skip: bool) -> Problem:
    """Blocks of three branches between nodes that all paths run through; `skip`: a tensor around all of them."""
    rng = np.random.default_rng(seed)
    tensors = []
    count = 4 * number + 1
    for block in range(number):
        first = 4 * block
        inner = range(first + 1, first + 4)
        tensors.append(Tensor(first, tuple(inner), float(rng.integers(1, 4))))
        tensors += [Tensor(node, (first + 4,), float(rng.integers(1, 4))) for node in inner]
    if skip:
        tensors.append(Tensor(1, (count - 1,), 2.0))
    return Problem(
        names=tuple(map(str, range(count))),
        devices=("a", "b", "c"),
        time_s=rng.integers(1, 9, (count, 3)).astype(float),
        weight_bytes=np.ones(count),
        working_bytes=np.zeros(count),
        memory_bytes=np.full(3, np.inf),
        tensors=(Tensor(None, (0,), 1.0), *tensors, Tensor(count - 1, (), 2.0, to_head=True)),
        bandwidth_bps=np.ones((4, 4)),
        latency_s=np.zeros((4, 4)),
        model="makespan",
        contention="port",
    )


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_pieces_make_the_whole(seed: int, skip: bool) -> None:
    problem = blocks(2, seed, skip)
    inst = read(problem)
    device_of = first_fit(problem)
    start = (list(device_of), by_rank(inst, device_of))
    with Engine() as engine:
        whole = least_makespan(problem, Limits(60.0), engine=engine)
        assert whole.proven
        found, bound = shortest_path(inst, pieces(inst), start, engine, Deadline(60.0), 0, lambda found, bound: None)
    assert bound <= whole.figure_s * (1 + 1e-6)
    assert found[1].makespan >= whole.figure_s * (1 - 1e-6)
    assert faults(problem, solution(*found, bound, "test")) == []
    if not skip:
        assert found[1].makespan == pytest.approx(whole.figure_s)
        assert bound == pytest.approx(whole.figure_s)


def test_pieces_know_when_together_they_do_not_fit() -> None:
    problem = dataclasses.replace(blocks(2, 0, False), memory_bytes=np.array([3.0, 3.0, 3.0]))
    inst = read(problem)
    device_of = first_fit(problem)
    start = (list(device_of), by_rank(inst, device_of))
    with Engine() as engine:
        found, _ = shortest_path(inst, pieces(inst), start, engine, Deadline(20.0), 0, lambda found, bound: None)
    assert inst.fits(found[0])


def test_windows_change_only_what_is_free() -> None:
    problem = blocks(3, 2, False)
    inst = read(problem)
    device_of = [0] * problem.node_count
    start = (device_of, by_rank(inst, device_of))
    tasks = window_tasks(inst, start, random.Random(0), 4, 5, 60.0)
    with Engine() as engine:
        answers = engine.solve(tasks, Deadline(60.0))
    assert any(answer.table is not None for answer in answers)
    for task, answer in zip(tasks, answers, strict=True):
        if answer.device_of is not None and answer.table is not None:
            assert task.free is not None
            changed = {node for node, device in enumerate(answer.device_of) if device != 0}
            assert changed <= task.free
            assert answer.table.makespan < start[1].makespan
            assert faults(problem, solution(answer.device_of, answer.table, 0.0, "test")) == []


def test_nothing_below_the_optimum() -> None:
    problem = blocks(2, 0, False)
    inst = read(problem)
    with Engine() as engine:
        best = least_makespan(problem, Limits(60.0), engine=engine)
        cutoff = best.figure_s * 0.99
        (answer,) = engine.solve([Task(inst, cutoff, 60.0)], Deadline(60.0))
    assert answer.table is None
    assert cutoff < answer.bound_s <= best.figure_s * (1 + 1e-6)
