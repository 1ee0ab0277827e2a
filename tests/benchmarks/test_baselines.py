"""Planners of others: figures that their papers or a hand calculation give, and that what they return is valid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from benchmarks.baselines.even_split import even_split
from benchmarks.baselines.getf import getf, speed_groups
from benchmarks.baselines.greedy_memory import greedy_memory
from benchmarks.baselines.heft import heft
from benchmarks.baselines.m_etf import m_etf
from benchmarks.baselines.m_sct import favourite_children, m_sct
from benchmarks.baselines.pipedream import pipedream, pipedream_replicated
from benchmarks.baselines.pipeedge import pipeedge
from benchmarks.baselines.placeto import placeto
from benchmarks.checker import check
from benchmarks.optima import WORKLOADS
from benchmarks.workloads import moirai, msr
from benchmarks.workloads import pipeedge as boards
from tests.passes.placement.brute import least_period
from tests.passes.placement.problems import problems
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.problem import Model, Problem, Solution, Tensor

Baseline = Callable[[Problem], Solution]


def small_placeto(problem: Problem) -> Solution:
    return placeto(problem, evaluations=10, population=5)


SCHEDULERS: tuple[Baseline, ...] = (heft, m_etf, m_sct, getf)
CHAINS: tuple[Baseline, ...] = (pipedream, pipeedge)
FITTING: tuple[Baseline, ...] = (*SCHEDULERS, *CHAINS, greedy_memory, small_placeto)


def made(
    time_s: Sequence[Sequence[float]], tensors: Sequence[Tensor], model: Model = "makespan", bandwidth: float = 1.0
) -> Problem:
    """Nodes without weights on devices without limits; every link is equal."""
    nodes, devices = np.array(time_s).shape
    return Problem(
        names=tuple("abcdefgh"[:nodes]),
        devices=tuple(f"d{device}" for device in range(devices)),
        time_s=np.array(time_s, float),
        weight_bytes=np.zeros(nodes),
        working_bytes=np.zeros(nodes),
        memory_bytes=np.full(devices, np.inf),
        tensors=tuple(tensors),
        bandwidth_bps=np.full((devices + 1, devices + 1), bandwidth),
        latency_s=np.zeros((devices + 1, devices + 1)),
        model=model,
    )


def chain(count: int, size_bytes: float = 0.0) -> list[Tensor]:
    return [Tensor(node, (node + 1,), size_bytes) for node in range(count - 1)]


FORK = [Tensor(0, (1,), 2.0), Tensor(0, (2,), 2.0)]


@pytest.mark.parametrize("baseline", SCHEDULERS)
def test_a_fork_of_costly_tensors_is_left_together_or_split_as_each_rule_says(baseline: Baseline) -> None:
    # Two readers of 3 s each behind 2 s of transfer: apart they end at 1 + 2 + 3 = 6, together at 1 + 3 + 3 = 7.
    # Earliest starts: the second reader can start at 3 elsewhere and at 4 here, so all four split.
    found = baseline(made([[1, 1], [3, 3], [3, 3]], FORK))
    assert found.figure_s == pytest.approx(6.0)
    assert found.device_of[1] != found.device_of[2]


def test_heft_looks_at_ends_where_earliest_start_looks_at_starts() -> None:
    # Both start at once on either device; the second runs everything ten times as slowly.
    problem = made([[1, 10], [1, 10]], [])
    assert heft(problem).figure_s == pytest.approx(2.0)
    assert m_etf(problem).figure_s == pytest.approx(10.0)


def test_heft_runs_a_short_node_in_a_gap() -> None:
    # b waits for a tensor from the head until 4; c, of lower rank, has nothing to wait for.
    problem = made([[6.0], [1.0]], [Tensor(None, (0,), 4.0)])
    assert heft(problem).figure_s == pytest.approx(10.0)
    assert heft(problem).schedule is not None


def test_sct_keeps_the_device_for_the_favourite_child() -> None:
    # b is a's heavy reader (4 s away), c the light one, d follows b.
    tensors = [Tensor(0, (1,), 4.0), Tensor(0, (2,), 1.0), Tensor(1, (3,), 4.0)]
    problem = made([[2, 2]] * 4, tensors)
    assert favourite_children(problem) == {0: 1, 1: 3}
    found = m_sct(problem)
    assert found.device_of[0] == found.device_of[1] == found.device_of[3] != found.device_of[2]
    assert found.figure_s == pytest.approx(6.0)


def test_getf_groups_devices_by_speed_and_drops_slow_ones() -> None:
    # Speeds 1, 1, 1/2 and 1/8 of four machines: the last is slower than a fourth of the fastest.
    problem = made([[1, 1, 2, 8]] * 3, chain(3))
    assert speed_groups(problem) == [(2,), (0, 1)]
    found = getf(problem)
    assert found.figure_s == pytest.approx(3.0)


def test_even_split_counts_layers() -> None:
    problem = made([[1, 1]] * 4, chain(4), "overlapped")
    assert even_split(problem).device_of == (0, 0, 1, 1)
    joined = replace(problem, groups=((0, 1),))
    assert even_split(joined).device_of == (0, 0, 0, 1)


def test_greedy_fills_the_largest_memory_first_and_says_when_all_are_full() -> None:
    problem = replace(made([[1, 1]] * 4, chain(4), "overlapped"), weight_bytes=np.ones(4))
    assert greedy_memory(replace(problem, memory_bytes=np.array([1.0, 3.0]))).device_of == (1, 1, 1, 0)
    with pytest.raises(Infeasible, match="before d"):
        greedy_memory(replace(problem, memory_bytes=np.array([1.0, 2.0])))


def test_pipedream_splits_for_equal_workers_what_pipeedge_splits_for_these() -> None:
    # A device three times as slow: equal halves give 3 * 2 = 6, one layer of four gives 3.
    problem = made([[3, 1]] * 4, chain(4), "overlapped")
    assert pipedream(problem, "nodes").figure_s == pytest.approx(6.0)
    assert pipeedge(problem).figure_s == pytest.approx(3.0)


def test_pipeedge_chooses_the_order_of_devices() -> None:
    # The only fast link goes from d1 to d0.
    problem = made([[1, 1]] * 2, chain(2, 8.0), "overlapped")
    problem.bandwidth_bps[1, 0] = 8.0
    found = pipeedge(problem)
    assert found.device_of == (1, 0)
    assert found.figure_s == pytest.approx(1.0)


def test_pipedream_replicates_a_stage_that_cannot_be_split() -> None:
    problem = made([[4, 4, 4], [2, 2, 2]], chain(2), "overlapped")
    found = pipedream_replicated(problem, "nodes")
    # Three workers in turn for both layers: 6 / 3; so do two for the first and one for the second.
    assert found.period_s == pytest.approx(2.0)
    assert pipedream(problem, "nodes").figure_s == pytest.approx(4.0)


def test_replicas_of_unequal_devices_go_at_the_pace_of_the_slowest() -> None:
    problem = made([[6, 2]], [], "overlapped")
    assert pipedream_replicated(problem).period_s == pytest.approx(3.0)


@pytest.mark.parametrize("baseline", FITTING)
def test_what_fits_nowhere_is_said(baseline: Baseline) -> None:
    model: Model = "overlapped" if baseline in CHAINS else "makespan"
    problem = replace(made([[1, 1]] * 2, chain(2), model), weight_bytes=np.array([1.0, 5.0]))
    with pytest.raises(Infeasible):
        baseline(replace(problem, memory_bytes=np.array([4.0, 4.0])))


@pytest.mark.parametrize("baseline", [*SCHEDULERS, greedy_memory, small_placeto])
@given(problem=problems(models=("makespan",), contiguous=False))
@settings(max_examples=25, deadline=None)
def test_schedules_are_valid(baseline: Baseline, problem: Problem) -> None:
    try:
        found = baseline(problem)
    except Infeasible:
        return
    assert check(problem, found).faults == ()


@pytest.mark.parametrize("baseline", [*CHAINS, greedy_memory, small_placeto])
@given(problem=problems(models=("overlapped", "summed"), contiguous=False))
@settings(max_examples=25, deadline=None)
def test_placements_are_valid_and_no_better_than_the_best(baseline: Baseline, problem: Problem) -> None:
    best = least_period(problem)
    try:
        found = baseline(problem)
    except Infeasible:
        return
    assert check(problem, found).faults == ()
    assert best is not None
    assert found.figure_s >= best.figure_s * (1 - 1e-9)


@given(
    problem=problems(
        models=("overlapped",), contentions=("pair",), contiguous=False, head=False, max_nodes=6, sharing=False
    )
)
@settings(max_examples=40, deadline=None)
def test_pipeedge_is_exact_for_chains_of_stages(problem: Problem) -> None:
    tensors = tuple(Tensor(node, (node + 1,), float(node % 3 + 1)) for node in range(problem.node_count - 1))
    # PipeEdge knows no cost of taking tensors in, and no weights that nodes share.
    problem = replace(problem, tensors=tensors, groups=(), contiguous=True, taking=np.zeros(0))
    best = least_period(problem)
    if best is None:
        with pytest.raises(Infeasible):
            pipeedge(problem)
    else:
        assert pipeedge(problem).figure_s == pytest.approx(best.figure_s)


@pytest.mark.skipif(not WORKLOADS.is_dir(), reason="the public workloads are not here")
class TestPublicWorkloads:
    """Figures of `shared/workloads/README.md`, from the papers' own programs."""

    @pytest.mark.parametrize(("name", "known"), [("bert24", 17.7899), ("resnet50", 39.3981), ("bert_l-3", 37.4557)])
    def test_pipedream_on_msr(self, name: str, known: float) -> None:
        problem = msr.read(_file("msr", "throughput", f"{name}_inference.json"), contiguous=True).problem
        found = pipedream(problem)
        assert found.figure_s == pytest.approx(known, abs=5e-5)
        assert check(problem, found).ok

    @pytest.mark.parametrize(
        ("count", "known", "equal"), [((4, 0), 3.354, 3.354), ((2, 2), 2.937, 3.354), ((8, 8), 0.801, 0.994)]
    )
    def test_pipeedge_on_its_boards(self, count: tuple[int, int], known: float, equal: float) -> None:
        kinds = [("Minnow", count[0]), ("RCC", count[1])]
        problem = boards.read(_file("pipeedge"), boards=[kind for kind in kinds if kind[1]]).problem
        assert round(pipeedge(problem).figure_s, 3) == known
        # What upstream's scheduler gives for mixed boards is what one gets by taking them for equal.
        assert round(pipedream(problem, "nodes").figure_s, 3) == equal

    def test_list_schedulers_on_googlenet(self) -> None:
        problem = moirai.read(_file("moirai", "GoogLeNet.json")).problem
        for baseline in SCHEDULERS:
            found = baseline(problem)
            assert check(problem, found).ok
            assert 0.877 < found.figure_s < 2.4


def _file(*parts: str) -> Path:
    return WORKLOADS.joinpath(*parts)
