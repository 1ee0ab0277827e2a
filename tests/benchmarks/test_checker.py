"""The checker accepts what is right and names what is wrong: each test spoils a valid solution in one way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from benchmarks.checker import check
from tests.passes.placement.brute import least
from tests.passes.placement.problems import problems
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Limits
from tvmpipe.passes.placement.problem import Contention, Model, Problem, Schedule, Solution, Tensor, Transfer
from tvmpipe.passes.placement.throughput.replicas import least_period_replicated


def diamond(model: Model, contention: Contention = "port", **changes: Any) -> Problem:
    """a feeds b and c, which feed d; the head feeds a and takes what d makes. All links are equal."""
    problem = Problem(
        names=("a", "b", "c", "d"),
        devices=("one", "two"),
        time_s=np.array([[2.0, 9.0], [3.0, 3.0], [9.0, 4.0], [1.0, 9.0]]),
        weight_bytes=np.array([1.0, 2.0, 3.0, 4.0]),
        working_bytes=np.array([1.0, 1.0, 2.0, 1.0]),
        memory_bytes=np.array([8.0, 8.0]),
        tensors=(
            Tensor(None, (0,), 2.0),
            Tensor(0, (1, 2), 4.0),
            Tensor(1, (3,), 4.0),
            Tensor(2, (3,), 2.0),
            Tensor(3, (), 6.0, to_head=True),
        ),
        bandwidth_bps=np.full((3, 3), 4.0),
        latency_s=np.full((3, 3), 0.5),
        model=model,
        contention=contention,
    )
    return replace(problem, **changes)


PLACED = (0, 0, 1, 0)
SCHEDULE = Schedule(
    (1.0, 3.0, 4.5, 9.5),
    (
        Transfer(0, 2, 0, 0.0, 1.0),
        Transfer(1, 0, 1, 3.0, 4.5),
        Transfer(3, 1, 0, 8.5, 9.5),
        Transfer(4, 0, 2, 10.5, 12.5),
    ),
)
SCHEDULED = Solution(PLACED, 12.5, 10.0, "by hand", SCHEDULE)


def faults(problem: Problem, solution: Solution) -> str:
    return "; ".join(check(problem, solution).faults)


def with_transfer(number: int, **changes: Any) -> Solution:
    transfers = list(SCHEDULE.transfers)
    transfers[number] = replace(transfers[number], **changes)
    return replace(SCHEDULED, schedule=replace(SCHEDULE, transfers=tuple(transfers)))


def with_start(node: int, start: float) -> Solution:
    starts = list(SCHEDULE.start_s)
    starts[node] = start
    return replace(SCHEDULED, schedule=replace(SCHEDULE, start_s=tuple(starts)))


def test_a_schedule_made_by_hand_is_right() -> None:
    verdict = check(diamond("makespan"), SCHEDULED)
    assert verdict.ok, verdict.faults
    assert verdict.figure_s == 12.5


@pytest.mark.parametrize(
    ("model", "contention", "period"),
    [
        ("overlapped", "pair", 6.0),  # device one computes 2 + 3 + 1
        ("overlapped", "port", 6.0),
        ("summed", "pair", 9.5),  # device one: 6, receives 0.5 + 0.5, sends 1 + 1.5
    ],
)
def test_periods_made_by_hand_are_right(model: Model, contention: Contention, period: float) -> None:
    assert check(diamond(model, contention), Solution(PLACED, period, 0.0, "by hand")).faults == ()
    assert f"figure is {period:g}" in faults(diamond(model, contention), Solution(PLACED, period - 0.1, 0.0, ""))


def test_a_latency_keeps_no_link_busy_and_a_port_has_all_its_links() -> None:
    slow = diamond("overlapped", "pair", bandwidth_bps=np.full((3, 3), 0.5))
    assert check(slow, Solution(PLACED, 0.0, 0.0, "")).figure_s == 6 / 0.5
    back = replace(slow, tensors=(*slow.tensors, Tensor(0, (2,), 1.0)))
    assert check(back, Solution(PLACED, 0.0, 0.0, "")).figure_s == 12.0  # 0 -> 1 has 10 s
    assert check(replace(back, contention="port"), Solution(PLACED, 0.0, 0.0, "")).figure_s == 12.0 + 10.0


def test_the_host_of_accelerators_pays_no_transfer() -> None:
    hosted = diamond("summed", free=np.array([False, True]))
    assert check(hosted, Solution((1, 1, 1, 1), 25.0, 25.0, "")).figure_s == 25.0
    assert check(hosted, Solution(PLACED, 0.0, 0.0, "")).figure_s == 9.5


@pytest.mark.parametrize(
    ("problem", "solution", "fault"),
    [
        (diamond("overlapped"), Solution((0, 0, 1), 6.0, 0.0, ""), "3 nodes are placed and there are 4"),
        (diamond("overlapped"), Solution((0, 0, 2, 0), 6.0, 0.0, ""), "c is on device 2, which does not exist"),
        (
            diamond("overlapped", time_s=np.array([[2, 9], [np.inf, 3], [9, 4], [1, 9]])),
            Solution(PLACED, 6.0, 0.0, ""),
            "b must not be on one",
        ),
        (diamond("overlapped", groups=((1, 2),)), Solution(PLACED, 6.0, 0.0, ""), "b, c do not share a device"),
        (
            diamond("overlapped", memory_bytes=np.array([7.5, 8.0])),
            Solution(PLACED, 6.0, 0.0, ""),
            "one holds 8 bytes and has 7.5",
        ),
        (
            diamond("overlapped", contiguous=True),
            Solution(PLACED, 6.0, 0.0, ""),
            "in a circle among the stages of one, two",
        ),
        (
            diamond("overlapped", tensors=(Tensor(0, (1,)), Tensor(1, (0,)))),
            Solution(PLACED, 6.0, 0.0, ""),
            "the graph has a cycle",
        ),
        (diamond("overlapped"), Solution(PLACED, 6.0, 6.1, ""), "bound 6.1 is not between"),
        (diamond("overlapped"), Solution(PLACED, 6.0, float("nan"), ""), "bound nan is not between"),
        (diamond("overlapped"), Solution(PLACED, float("nan"), 0.0, ""), "figure is 6 and not nan"),
        (diamond("makespan"), replace(SCHEDULED, schedule=None), "there is no schedule"),
        (diamond("makespan"), replace(SCHEDULED, figure_s=12.0), "figure is 12.5 and not 12"),
        (diamond("makespan"), replace(SCHEDULED, schedule=Schedule((0.0,), ())), "1 nodes have a start"),
        (diamond("makespan"), with_start(3, float("nan")), "not finite"),
        (diamond("makespan"), with_start(0, -1.0), "a starts before 0"),
        (diamond("makespan"), with_start(0, 0.5), "a starts before tensor 0 is there"),
        (diamond("makespan"), with_start(1, 2.5), "b starts before tensor 1 is there"),
        (diamond("makespan"), with_start(2, 4.0), "c starts before tensor 1 is there"),
        (diamond("makespan"), with_start(1, 8.0), "one has b and d at once"),
        (
            diamond("makespan"),
            with_transfer(1, start_s=2.0, end_s=3.5),
            "tensor 1 from 0 to 1 leaves before it is made",
        ),
        (diamond("makespan"), with_transfer(0, start_s=-1.0, end_s=0.0), "tensor 0 from 2 to 0 leaves before"),
        (diamond("makespan"), with_transfer(1, end_s=4.0), "takes 1, which"),
        (diamond("makespan"), with_transfer(1, end_s=3.0), "takes 0, which"),
        (diamond("makespan"), with_transfer(3, receiver=1), "tensor 4 from 0 to 2 travels 0 times"),
        (diamond("makespan"), with_transfer(3, tensor=7), "tensor 7 from 0 to 2 is not made there"),
        (diamond("makespan"), with_transfer(2, sender=0), "tensor 3 from 0 to 0 is not made there"),
        (
            diamond("makespan"),
            replace(SCHEDULED, schedule=replace(SCHEDULE, transfers=(*SCHEDULE.transfers, SCHEDULE.transfers[1]))),
            "tensor 1 from 0 to 1 travels 2 times",
        ),
        (
            diamond("makespan"),
            replace(SCHEDULED, schedule=replace(SCHEDULE, transfers=SCHEDULE.transfers[1:])),
            "tensor 0 from 2 to 0 travels 0 times",
        ),
    ],
)
def test_what_is_wrong_is_named(problem: Problem, solution: Solution, fault: str) -> None:
    assert fault in faults(problem, solution)


def test_a_port_carries_one_transfer_at_a_time_and_a_link_only_its_own() -> None:
    """The head sends to both devices at once: two links, but one port."""
    two = diamond(
        "makespan",
        "pair",
        time_s=np.ones((4, 2)),
        tensors=(Tensor(None, (0, 1), 2.0), Tensor(2, (), 2.0, to_head=True), Tensor(3, (), 2.0, to_head=True)),
    )
    schedule = Schedule(
        (1.0, 1.0, 0.0, 0.0),
        (
            Transfer(0, 2, 0, 0.0, 1.0),
            Transfer(0, 2, 1, 0.0, 1.0),
            Transfer(1, 1, 2, 1.0, 2.0),
            Transfer(2, 0, 2, 1.5, 2.5),
        ),
    )
    solution = Solution((0, 1, 1, 0), 2.5, 0.0, "by hand", schedule)
    assert faults(two, solution) == ""
    found = faults(replace(two, contention="port"), solution)
    assert "send port 2 has tensor 0 to 0 and tensor 0 to 1 at once" in found
    assert "receive port 2 has tensor 1 to 2 and tensor 2 to 2 at once" in found


def test_a_node_that_takes_no_time_still_waits_for_its_device() -> None:
    problem = diamond(
        "makespan", time_s=np.array([[0.0, 0], [4, 4], [4, 4], [4, 4]]), tensors=(), memory_bytes=np.full(2, 9.0)
    )
    inside = Solution((0, 0, 1, 1), 8.0, 0.0, "", Schedule((1.0, 0.0, 0.0, 4.0), ()))
    assert "one has b and a at once" in faults(problem, inside)
    assert faults(problem, replace(inside, schedule=Schedule((4.0, 0.0, 0.0, 4.0), ()))) == ""


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problems(max_nodes=5))
def test_the_best_of_everything_is_accepted(problem: Problem) -> None:
    best = least(problem)
    if best is not None:
        assert check(problem, best).faults == ()
        assert check(problem, replace(best, figure_s=best.figure_s * 0.999 - 1e-6)).faults != ()


def shared(**changes: Any) -> Problem:
    """a on one, then b on two and three in turn; 4 bytes between them, 1 from and to the head, 4 a second."""
    facts: dict[str, Any] = {
        "names": ("a", "b"),
        "devices": ("one", "two", "three"),
        "time_s": np.array([[2.0, 9.0, 9.0], [9.0, 5.0, 3.0]]),
        "weight_bytes": np.array([1.0, 4.0]),
        "working_bytes": np.array([1.0, 2.0]),
        "memory_bytes": np.array([2.0, 6.0, 7.0]),
        "tensors": (Tensor(None, (0,), 1.0), Tensor(0, (1,), 4.0), Tensor(1, (), 1.0, to_head=True)),
        "bandwidth_bps": np.full((4, 4), 4.0),
        "latency_s": np.full((4, 4), 0.5),
        "model": "overlapped",
    }
    return replace(Problem(**facts), **changes)


TURNS = ((0,), (1, 2))


@pytest.mark.parametrize(
    ("changes", "period"),
    [
        ({}, 2.5),  # two computes 5 s every second sample
        ({"time_s": np.ones((2, 3)), "bandwidth_bps": np.full((4, 4), 1.0)}, 2.0),  # 4 s to each every second
        ({"time_s": np.ones((2, 3)), "bandwidth_bps": np.full((4, 4), 1.0), "contention": "port"}, 4.0),  # one's port
        ({"model": "summed"}, 3.25),  # one: 2 s, receives 0.25 and sends 1
        ({"model": "summed", "free": np.array([True, False, False])}, 3.125),  # two: (5 + 1 + 0.25) / 2
    ],
)
def test_turns_made_by_hand_are_right(changes: dict[str, Any], period: float) -> None:
    problem = shared(**changes)
    assert check(problem, Solution((0, 1), period, period, ""), TURNS).faults == ()
    assert "the figure is" in "; ".join(check(problem, Solution((0, 1), period - 0.1, 0.0, ""), TURNS).faults)
    assert "the bound" in "; ".join(check(problem, Solution((0, 1), period, period + 0.1, ""), TURNS).faults)


@pytest.mark.parametrize(
    ("changes", "groups", "device_of", "fault"),
    [
        ({"memory_bytes": np.array([2.0, 6.0, 5.0])}, TURNS, (0, 1), "three holds 6 bytes and has 5"),
        ({"memory_bytes": np.array([2.0, 5.0, 6.0])}, TURNS, (0, 1), "two holds 6 bytes and has 5"),
        ({"time_s": np.array([[2.0, 9.0, 9.0], [9.0, 5.0, np.inf]])}, TURNS, (0, 1), "b must not be on three"),
        ({}, ((0,), (1, 2, 1)), (0, 1), "two is in groups 2 times"),
        ({}, ((0, 1), (1, 2)), (0, 1), "two is in groups 2 times"),
        ({}, ((0,), (1, 3)), (0, 1), "a group has device 3, which does not exist"),
        ({}, ((0,), (1, 2), ()), (0, 1), "a group has no device"),
        ({}, TURNS, (0, 2), "b is on device 2, which does not exist"),
        ({"groups": ((0, 1),)}, TURNS, (0, 1), "a, b do not share a device"),
        ({"model": "makespan"}, TURNS, (0, 1), "one sample has no turns"),
        (
            {
                "names": ("a", "b", "c"),
                "time_s": np.ones((3, 3)),
                "weight_bytes": np.zeros(3),
                "working_bytes": np.zeros(3),
                "tensors": (Tensor(0, (1,)), Tensor(1, (2,))),
                "contiguous": True,
            },
            TURNS,
            (1, 0, 1),
            "in a circle among the stages of one, two+three",
        ),
    ],
)
def test_what_is_wrong_with_turns_is_named(
    changes: dict[str, Any], groups: tuple[tuple[int, ...], ...], device_of: tuple[int, ...], fault: str
) -> None:
    verdict = check(shared(**changes), Solution(device_of, 2.5, 0.0, ""), groups)
    assert fault in "; ".join(verdict.faults)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problems(models=("overlapped", "summed"), max_nodes=5, max_devices=4))
def test_what_the_planner_of_turns_finds_is_accepted(problem: Problem) -> None:
    try:
        solution, groups = least_period_replicated(problem, Limits(0.5))
    except Infeasible:
        return
    assert check(problem, solution, groups).faults == ()
