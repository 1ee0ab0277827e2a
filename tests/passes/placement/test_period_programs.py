"""The parts of the search for the least period, each against trying everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.passes.placement.brute import least_period, periods, placements
from tests.passes.placement.problems import problems
from tvmpipe.passes.placement.exact.period_program import solve_program
from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Problem, Tensor
from tvmpipe.passes.placement.reduce.device_classes import device_classes
from tvmpipe.passes.placement.reduce.multilevel import coarsened, steady_order
from tvmpipe.passes.placement.reduce.presolve import grouped_nodes, presolve
from tvmpipe.passes.placement.throughput.assign import reassigned, rounded_kinds
from tvmpipe.passes.placement.throughput.chain import best_chain, chain_order
from tvmpipe.passes.placement.throughput.downsets import all_downsets, best_stages, prefixes
from tvmpipe.passes.placement.throughput.large_neighbourhood import improve_windows
from tvmpipe.passes.placement.throughput.load_tracker import LoadTracker
from tvmpipe.passes.placement.throughput.local_search import local_search
from tvmpipe.passes.placement.throughput.period import loads
from tvmpipe.passes.placement.throughput.period_bounds import period_bound

THROUGHPUT = problems(models=("overlapped", "summed"), max_nodes=6)
few = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@few
@given(THROUGHPUT)
def test_program_finds_the_least_period(problem: Problem) -> None:
    best = least_period(problem)
    placed, bound_s = solve_program(problem, 0.0, 1e3 if best is None else best.figure_s * 1.5 + 1, 30)
    if best is None:
        assert placed is None
        return
    assert placed is not None
    assert loads(problem, placed).period_s == pytest.approx(best.figure_s, rel=1e-6)
    assert bound_s == pytest.approx(best.figure_s, rel=1e-4, abs=1e-4)
    assert placed in set(map(tuple, placements(problem).tolist()))


@st.composite
def chains(draw: st.DrawFn) -> Problem:
    """Contiguous chains on up to four devices, some of them equal, with links of any speed."""
    problem = draw(problems(models=("overlapped",), max_nodes=6, max_devices=4, contiguous=True, head=False))
    nodes = problem.node_count
    sizes = [float(draw(st.integers(0, 8))) for _ in range(nodes)]
    tensors = tuple(Tensor(node, (node + 1,), sizes[node]) for node in range(nodes - 1))
    problem = replace(problem, tensors=tensors, groups=())
    if draw(st.booleans()):  # a copy of the first device
        time_s = problem.time_s.copy()
        time_s[:, -1] = time_s[:, 0]
        memory_bytes = problem.memory_bytes.copy()
        memory_bytes[-1] = memory_bytes[0]
        taking = problem.taking.copy()
        taking[-1:] = taking[:1]
        problem = replace(problem, time_s=time_s, memory_bytes=memory_bytes, taking=taking)
    if draw(st.booleans()):  # equal links
        ends = problem.device_count + 1
        problem = replace(problem, bandwidth_bps=np.full((ends, ends), 2.0), latency_s=np.full((ends, ends), 0.5))
    return problem


@few
@given(chains())
def test_chains_are_exact(problem: Problem) -> None:
    assert chain_order(problem) is not None
    best = least_period(problem)
    placed, figure_s, bound_s = best_chain(problem, 0.0, 1e4, Deadline(10))
    if best is None:
        assert placed is None
        return
    assert placed is not None
    assert figure_s == pytest.approx(best.figure_s, rel=1e-6, abs=1e-9)
    assert bound_s <= best.figure_s
    assert figure_s <= bound_s * (1 + 1e-6) + 1e-9
    assert placed in set(map(tuple, placements(problem).tolist()))


@few
@given(chains())
def test_the_furthest_cut_bounds_chains(problem: Problem) -> None:
    from tvmpipe.passes.placement.throughput.bisection import least_accepted
    from tvmpipe.passes.placement.throughput.chain import _Chain

    best = least_period(problem)
    assume(best is not None)
    assert best is not None
    chain = _Chain(problem, tuple(range(problem.node_count)))
    _, _, bound_s = least_accepted(problem, chain.furthest, 0.0, 1e4, Deadline(10))
    _, sure_s, _ = least_accepted(problem, chain.furthest_surely, 0.0, 1e4, Deadline(10))
    _, beam_s, _ = least_accepted(problem, chain.beam, 0.0, 1e4, Deadline(10))
    assert bound_s <= best.figure_s * (1 + 1e-9)
    assert sure_s >= best.figure_s * (1 - 1e-9)
    assert beam_s >= best.figure_s * (1 - 1e-9)


@few
@given(problems(models=("overlapped", "summed"), max_nodes=6, contiguous=True))
def test_downsets_bound_contiguous_stages(problem: Problem) -> None:
    small = grouped_nodes(problem)
    sets = all_downsets(small.problem, 1000)
    assert sets is not None
    best = least_period(problem)
    found = best_stages(small.problem, sets, 1e4, Deadline(10))
    if best is None:
        assert found.device_of is None
        return
    assert found.device_of is not None
    placed = small.lift(found.device_of)
    assert placed in set(map(tuple, placements(problem).tolist()))
    assert found.bound_s <= best.figure_s * (1 + 1e-6)
    runs = best_stages(small.problem, prefixes(steady_order(small.problem)), 1e4, Deadline(10))
    assert runs.bound_s >= found.bound_s * (1 - 1e-6)


def test_downsets_are_exact_on_equal_links() -> None:
    problem = replace(chain_problem(6, [1.0, 1.0, 2.0], [1.0, 0.5, 2.0]), model="summed")
    sets = all_downsets(problem, 100)
    assert sets is not None
    assert len(sets) == 7
    found = best_stages(problem, sets, 1e4, Deadline(10))
    best = least_period(replace(problem, contiguous=True))
    assert best is not None
    assert found.device_of is not None
    assert loads(problem, found.device_of).period_s == pytest.approx(best.figure_s)
    assert found.bound_s == pytest.approx(best.figure_s, rel=1e-6)
    assert all_downsets(problem, 6) is None


@few
@given(THROUGHPUT)
def test_presolve_keeps_what_is_as_good(problem: Problem) -> None:
    every = placements(problem)
    assume(len(every) > 0)
    figures = periods(problem, every)
    incumbent_s = float(np.quantile(figures, 0.3))
    small = grouped_nodes(problem)
    small = small.then(presolve(small.problem, incumbent_s))
    for device_of in every[figures <= incumbent_s].tolist():
        lowered = small.lower(device_of)
        assert lowered is not None
        assert small.lift(lowered) == tuple(device_of)
        assert loads(small.problem, lowered).period_s == pytest.approx(loads(problem, device_of).period_s)


@few
@given(THROUGHPUT)
def test_bounds_hold(problem: Problem) -> None:
    best = least_period(problem)
    assume(best is not None)
    assert best is not None
    assert period_bound(problem, Deadline(10)).bound_s <= best.figure_s * (1 + 1e-9)


@few
@given(THROUGHPUT, st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=12))
def test_load_tracker_counts_as_the_model_does(problem: Problem, moves: list[tuple[int, int]]) -> None:
    problem = replace(problem, time_s=np.where(np.isfinite(problem.time_s), problem.time_s, 5.0))
    tracker = LoadTracker(problem, [0] * problem.node_count)
    for node, target in moves:
        if node < problem.node_count and target < problem.device_count and tracker.device_of[node] != target:
            tracker.commit(tracker.change(node, target))
            assert tracker.period_s == pytest.approx(loads(problem, tracker.device_of).period_s)
    shortage = problem.shortage_bytes(tracker.device_of)
    assert [not tracker.holds(device) for device in range(problem.device_count)] == (shortage > 0).tolist()


@few
@given(THROUGHPUT)
def test_searches_stay_valid_and_never_lose(problem: Problem) -> None:
    problem = grouped_nodes(problem).problem
    every = placements(problem)
    assume(len(every) > 0)
    allowed = set(map(tuple, every.tolist()))
    start = tuple(every[0].tolist())
    searched = local_search(problem, start, 300, Deadline(10), seed=1)
    assert searched == local_search(problem, start, 300, Deadline(10), seed=1)
    assert searched in allowed
    assert loads(problem, searched).period_s <= loads(problem, start).period_s
    if not problem.contiguous:
        improved = improve_windows(problem, start, 2, Deadline(10), seed=1)
        assert improved in allowed
        assert loads(problem, improved).period_s <= loads(problem, start).period_s


def test_coarsening_makes_no_cycle_and_keeps_what_is_apart() -> None:
    random = np.random.default_rng(4)
    nodes = 200
    tensors = tuple(
        Tensor(node, tuple(sorted({int(r) for r in random.integers(node + 1, nodes, 2)})), float(random.integers(1, 9)))
        for node in range(nodes - 1)
    )
    problem = replace(chain_problem(nodes, [1.0, 2.0], list(random.random(nodes))), tensors=tensors, contiguous=True)
    device_of = [node % 2 for node in range(nodes)]
    small = coarsened(problem, 30)
    assert small.problem.node_count <= 45
    assert sorted(steady_order(small.problem)) == list(range(small.problem.node_count))
    assert small.problem.order  # raises where there is a cycle
    assert sorted(node for part in small.parts for node in part) == list(range(nodes))
    apart = coarsened(problem, 30, device_of)
    assert apart.lower(device_of) is not None
    assert loads(apart.problem, apart.lower(device_of) or ()).period_s == pytest.approx(
        loads(problem, device_of).period_s
    )


def chain_problem(nodes: int, slowness: list[float], seconds: list[float]) -> Problem:
    """A chain whose nodes take `seconds`, repeated, times each device's slowness; links move a byte a second."""
    count = len(slowness)
    work = np.resize(seconds, nodes)
    return Problem(
        names=tuple(f"n{node}" for node in range(nodes)),
        devices=tuple(f"d{device}" for device in range(count)),
        time_s=np.outer(work, slowness),
        weight_bytes=np.zeros(nodes),
        working_bytes=np.zeros(nodes),
        memory_bytes=np.full(count, np.inf),
        tensors=tuple(Tensor(node, (node + 1,), 0.25) for node in range(nodes - 1)),
        bandwidth_bps=np.ones((count + 1, count + 1)),
        latency_s=np.zeros((count + 1, count + 1)),
        model="overlapped",
    )


@few
@given(THROUGHPUT)
def test_stages_reassigned_and_kinds_rounded_stay_valid(problem: Problem) -> None:
    problem = replace(grouped_nodes(problem).problem, contention="pair")
    every = placements(problem)
    assume(len(every) > 0)
    allowed = set(map(tuple, every.tolist()))
    for device_of in every[:5].tolist():
        moved = reassigned(problem, device_of)
        assert moved in allowed
        assert loads(problem, moved).compute_s.max() <= loads(problem, device_of).compute_s.max() * (1 + 1e-9)
    few_kinds = rounded_kinds(problem, 1)
    assert len(device_classes(few_kinds)) == 1 or any(t.seconds is not None for t in problem.tensors)
    for device_of in placements(few_kinds)[:5].tolist():
        assert tuple(device_of) in allowed
        assert (loads(problem, device_of).compute_s <= loads(few_kinds, device_of).compute_s + 1e-9).all()
