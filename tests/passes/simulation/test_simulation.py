"""The simulator gives the planner's figures where nothing is left to chance, and keeps the rules where much is."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.checker import check
from tests.passes.placement.brute import least, placements
from tests.passes.placement.problems import problems
from tvmpipe.passes.placement.problem import Problem, Solution, Tensor
from tvmpipe.passes.placement.throughput.replicas import Groups, grouped, period_in_turn
from tvmpipe.passes.simulation import Simulation, simulate, timeline, trace_events
from tvmpipe.runtime.head.trace import write_trace


@st.composite
def placed(draw: Any) -> tuple[Problem, Solution]:
    """A problem of throughput with any placement that is allowed."""
    problem = draw(problems(models=("overlapped", "summed"), max_nodes=6))
    every = placements(problem)
    assume(len(every))
    device_of = tuple(every[draw(st.integers(0, len(every) - 1))].tolist())
    figure = check(problem, Solution(device_of, 0.0, 0.0, "any")).figure_s
    return problem, Solution(device_of, figure, 0.0, "any")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(placed())
def test_a_full_pipeline_has_the_planners_period(one: tuple[Problem, Solution]) -> None:
    problem, solution = one
    simulation = simulate(problem, solution, samples=200)
    assert simulation.period_s == pytest.approx(solution.figure_s, rel=1e-6, abs=1e-9)
    sound(simulation)


@st.composite
def in_turn(draw: Any) -> tuple[Problem, Solution, Groups]:
    """A problem of throughput on up to five devices, groups of them, and any placement on these that is allowed."""
    problem = draw(problems(models=("overlapped", "summed"), max_nodes=6, max_devices=5))
    count = problem.device_count
    split = draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count))
    order = draw(st.permutations(range(count)))
    groups = tuple(tuple(d for d in order if split[d] == one) for one in sorted(set(split)))
    every = placements(grouped(problem, groups))
    assume(len(every))
    device_of = tuple(every[draw(st.integers(0, len(every) - 1))].tolist())
    return problem, Solution(device_of, period_in_turn(problem, groups, device_of), 0.0, "any"), groups


@settings(max_examples=40, deadline=None, derandomize=True)
@given(in_turn())
def test_devices_that_take_turns_have_the_planners_period(one: tuple[Problem, Solution, Groups]) -> None:
    problem, solution, groups = one
    assert check(problem, solution, groups).faults == ()
    simulation = simulate(problem, solution, samples=600, groups=groups)
    assert simulation.period_s == pytest.approx(solution.figure_s, rel=1e-6, abs=1e-9)
    sound(simulation)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problems(models=("makespan",), max_nodes=6))
def test_one_sample_takes_its_schedules_makespan(problem: Problem) -> None:
    best = least(problem)
    assume(best is not None)
    assert best is not None
    simulation = simulate(problem, best)
    assert simulation.latency_s == simulation.period_s == pytest.approx(best.figure_s, rel=1e-9)
    sound(simulation)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(placed(), st.integers(1, 4), st.floats(0.01, 1.0), st.integers(0, 9))
def test_nothing_is_lost_with_few_samples_and_jitter(
    one: tuple[Problem, Solution], inflight: int, jitter: float, seed: int
) -> None:
    """However small the queues, every sample comes out, lanes do one thing at a time and no result is too early."""
    problem, solution = one
    simulation = simulate(problem, solution, 12, inflight, jitter, seed)
    sound(simulation)
    assert simulation == simulate(problem, solution, 12, inflight, jitter, seed)
    for sample, left in enumerate(sorted(simulation.left_s)):
        assert sum(entered < left for entered in simulation.entered_s) <= sample + inflight


def sound(simulation: Simulation) -> None:
    """Every lane does one thing at a time, and each sample does the same."""
    by_lane, by_sample = defaultdict(list), defaultdict(list)
    for span in simulation.spans:
        by_lane[span.lane].append((span.start_s, span.end_s))
        by_sample[span.sample].append((span.lane, span.name))
    for spans in by_lane.values():
        assert all(before[1] <= after[0] + 1e-9 for before, after in pairwise(sorted(spans)))
    assert all(sorted(did) == sorted(by_sample[sample % simulation.round]) for sample, did in by_sample.items())
    assert len(by_sample) == len(simulation.left_s)
    # Results may still be on their way when the last lane has done its part.
    assert simulation.end_s >= max(end for spans in by_lane.values() for _, end in spans) * (1 - 1e-9)


def chain(**changes: Any) -> Problem:
    """Two nodes on two devices, 2 and 3 s, with 1 s between them, from and to a head over links of no time."""
    facts: dict[str, Any] = {
        "names": ("first", "second"),
        "devices": ("one", "two"),
        "time_s": np.array([[2.0, 9.0], [9.0, 3.0]]),
        "weight_bytes": np.zeros(2),
        "working_bytes": np.zeros(2),
        "memory_bytes": np.full(2, np.inf),
        "tensors": (Tensor(None, (0,)), Tensor(0, (1,), 1.0), Tensor(1, (), to_head=True)),
        "bandwidth_bps": np.ones((3, 3)),
        "latency_s": np.zeros((3, 3)),
        "model": "overlapped",
    }
    return Problem(**facts | changes)


def test_a_pipeline_by_hand() -> None:
    solution = Solution((0, 1), 3.0, 3.0, "by hand")
    alone = simulate(chain(), solution, samples=9, inflight=1)
    assert (alone.period_s, alone.latency_s, alone.end_s) == (6.0, 6.0, 54.0)
    two = simulate(chain(), solution, samples=9, inflight=2)
    assert (two.period_s, two.end_s) == (3.0, 3 + 9 * 3)
    assert two.busy_s == {"one": 18.0, "two": 27.0, "head -> one": 0.0, "one -> two": 9.0, "two -> head": 0.0}
    # Summed: what is sent and received counts on the devices, 2 + 1 and 1 + 3.
    assert simulate(chain(model="summed"), solution, samples=20).period_s == 4.0


def test_devices_of_several_stages_keep_their_period_with_few_samples() -> None:
    """b, a, b, c, b, c, a in a line with links: lanes take what is there, in the executor's order."""
    device_of = (1, 0, 1, 2, 1, 2, 0)
    seconds = np.array([111.9, 32.0, 18.7, 61.1, 25.5, 90.9, 127.4])
    facts = {
        "names": tuple("stuvwxy"),
        "devices": ("a", "b", "c"),
        "time_s": np.tile(seconds[:, None], (1, 3)),
        "weight_bytes": np.zeros(7),
        "working_bytes": np.zeros(7),
        "memory_bytes": np.full(3, np.inf),
        "tensors": (
            Tensor(None, (0,)),
            *(Tensor(n, (n + 1,), size) for n, size in enumerate([69.1, 34.8, 34.8, 34.8, 17.7, 26.2])),
            Tensor(6, (), to_head=True),
        ),
        "bandwidth_bps": np.ones((4, 4)),
        "latency_s": np.zeros((4, 4)),
    }
    solution = Solution(device_of, 159.4, 159.4, "by hand")
    assert simulate(chain(**facts), solution, 300, inflight=8).period_s == pytest.approx(159.4, rel=0.01)
    assert simulate(chain(**facts), solution, 300, inflight=4).period_s > 200


def test_jitter_is_seeded_and_costs_time() -> None:
    solution = Solution((0, 1), 3.0, 3.0, "by hand")
    first, again, other = (simulate(chain(), solution, 400, 3, 0.5, seed) for seed in (1, 1, 2))
    assert first == again != other
    # Means stay: two devices that wait for each other now and then lose some of their time, and not most of it.
    assert 3.1 < first.period_s < 4.5
    assert np.mean([span.end_s - span.start_s for span in first.spans if span.lane == "two"]) == pytest.approx(
        3, rel=0.1
    )


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"inflight": 0}, {"jitter": -0.1}, {"jitter": float("nan")}])
def test_what_cannot_be_simulated_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1, and jitter"):
        simulate(chain(), Solution((0, 1), 3.0, 3.0, ""), **wrong)
    with pytest.raises(ValueError, match="has none"):
        simulate(chain(model="makespan"), Solution((0, 1), 6.0, 6.0, ""))


def test_turns_by_hand() -> None:
    """Three devices for the second node: one sample in three each, of unlike length; bursts of results even out."""
    facts = {
        "devices": ("one", "two", "three", "four"),
        "time_s": np.array([[2.0, 9.0, 9.0, 9.0], [9.0, 7.5, 6.0, 3.0]]),
        "memory_bytes": np.full(4, np.inf),
        "bandwidth_bps": np.ones((5, 5)),
        "latency_s": np.zeros((5, 5)),
    }
    groups = ((0,), (3, 1, 2))
    run = simulate(chain(**facts), Solution((0, 1), 2.5, 2.5, "by hand"), samples=300, groups=groups)
    assert run.round == 3
    assert run.period_s == pytest.approx(2.5, rel=1e-3)
    assert {span.lane for span in run.spans if span.sample % 3 == 1} >= {"two", "one -> two", "two -> head"}
    assert run.busy_s["four"] == 100 * 3.0
    with pytest.raises(ValueError, match="no devices take turns"):
        simulate(chain(**facts, model="makespan"), Solution((0, 1), 2.5, 2.5, ""), groups=groups)
    with pytest.raises(ValueError, match="every device is in one group"):
        simulate(chain(**facts), Solution((0, 1), 2.5, 2.5, ""), groups=((0,), (1, 0)))


def test_a_timeline_shows_who_did_what(tmp_path: Path) -> None:
    simulation = simulate(chain(), Solution((0, 1), 3.0, 3.0, ""), samples=2)
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    console.print(timeline(simulation, width=9))
    text = console.export_text()
    assert "0011·····" in text
    assert "···000111" in text
    assert "··0·1····" in text
    assert "44%" in text
    write_trace(tmp_path / "trace.json", trace_events(simulation))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [(e["name"], e["cat"], e["ts"], e["dur"]) for e in events if e["ph"] == "X" and e["dur"]]
    assert ("second #1", "compute", 6e6, 3e6) in spans
    assert ("first to two #0", "send", 2e6, 1e6) in spans
