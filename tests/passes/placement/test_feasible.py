"""Whether anything fits: against all placements there are, and what is said when nothing does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.passes.placement.feasible import first_fit
from tvmpipe.passes.placement.infeasible import BlockTooLarge, Infeasible, MemoryShortage
from tvmpipe.passes.placement.problem import Problem, Shared
from tvmpipe.units import format_size

MIB = 2**20


def problem_of(weights: Sequence[float], memories: Sequence[float], working: Sequence[float] | None = None) -> Problem:
    """Nodes without edges, which all take a second."""
    count = len(memories)
    return Problem(
        names=tuple(f"n{i}" for i in range(len(weights))),
        devices=tuple(f"d{i}" for i in range(count)),
        time_s=np.ones((len(weights), count)),
        weight_bytes=np.array(weights, float) * MIB,
        working_bytes=np.array(working or [0.0] * len(weights), float) * MIB,
        memory_bytes=np.array(memories, float) * MIB,
        tensors=(),
        bandwidth_bps=np.ones((count + 1, count + 1)),
        latency_s=np.zeros((count + 1, count + 1)),
        model="overlapped",
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    nodes, devices = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    sizes = st.integers(0, 8)
    problem = problem_of(
        draw(st.lists(sizes, min_size=nodes, max_size=nodes)),
        draw(st.lists(st.one_of(st.integers(0, 20), st.just(np.inf)), min_size=devices, max_size=devices)),
        draw(st.lists(sizes, min_size=nodes, max_size=nodes)),
    )
    for node, device in draw(st.lists(st.tuples(st.integers(0, nodes - 1), st.integers(0, devices - 1)), max_size=4)):
        problem.time_s[node, device] = np.inf
    group = draw(st.lists(st.integers(0, nodes - 1), unique=True, max_size=3))
    readers = draw(st.lists(st.integers(0, nodes - 1), unique=True, max_size=4))
    shared = (Shared(tuple(sorted(readers)), draw(st.integers(1, 6)) * MIB),) if len(readers) > 1 else ()
    weights = problem.weight_bytes.copy()
    for one in shared:
        weights[list(one.nodes)] += one.size_bytes
    return replace(problem, weight_bytes=weights, shared=shared, groups=(tuple(group),) if len(group) > 1 else ())


def fits(problem: Problem, device_of: Sequence[int]) -> bool:
    """By the definition, without the module's help."""
    for device in range(len(problem.devices)):
        inside = [node for node in range(len(device_of)) if device_of[node] == device]
        held = sum(problem.weight_bytes[node] for node in inside)
        for one in problem.shared:
            held -= one.size_bytes * max(0, len(set(inside) & set(one.nodes)) - 1)
        held += max((problem.working_bytes[node] for node in inside), default=0)
        if held > problem.memory_bytes[device]:
            return False
    return all(np.isfinite(problem.time_s[node, device]) for node, device in enumerate(device_of)) and all(
        len({device_of[node] for node in group}) == 1 for group in problem.groups
    )


@settings(max_examples=150, deadline=None)
@given(problems())
def test_a_placement_is_found_whenever_there_is_one(problem: Problem) -> None:
    everything = itertools.product(range(problem.device_count), repeat=problem.node_count)
    if any(fits(problem, one) for one in everything):
        assert fits(problem, first_fit(problem))
    else:
        with pytest.raises(Infeasible):
            first_fit(problem)


def test_the_bytes_that_are_missing_are_named() -> None:
    with pytest.raises(MemoryShortage) as caught:
        first_fit(problem_of([4, 4, 4], [6, 4]))
    error = caught.value
    assert (error.weight_bytes, error.working_bytes) == (12 * MIB, 0)
    assert error.memory_bytes == {"d0": 6 * MIB, "d1": 4 * MIB}
    assert sum(error.missing_bytes.values()) == 2 * MIB
    assert re.fullmatch(
        r"no placement fits: 12\.0 MiB of weights and at least 0 B of activations on d0 6\.0 MiB, d1 4\.0 MiB; "
        r"2097152 bytes are missing: 2097152 bytes \(2\.0 MiB\) on d[01]",
        error.sentence(format_size),
    )


def test_a_node_that_fits_nowhere_is_named() -> None:
    with pytest.raises(BlockTooLarge) as caught:
        first_fit(problem_of([1, 8], [6, 4], working=[0, 1]))
    error = caught.value
    assert (error.nodes, error.device, error.allowed) == (("n1",), "d0", ())
    assert (error.need_bytes, error.memory_bytes) == (9 * MIB, 6 * MIB)
    assert str(error) == (
        "no placement fits: n1 needs 9437184 bytes, and the largest device is d0 with 6291456 bytes; "
        "3145728 bytes are missing: 3145728 bytes on d0"
    )
    assert error.sentence(format_size) == (
        "no placement fits: n1 needs 9.0 MiB, and the largest device is d0 with 6.0 MiB; "
        "3145728 bytes are missing: 3145728 bytes (3.0 MiB) on d0"
    )


def test_pins_that_conflict_within_a_group_are_named() -> None:
    problem = replace(problem_of([1, 1], [9, 9]), groups=((0, 1),))
    problem.time_s[0, 1] = problem.time_s[1, 0] = np.inf
    with pytest.raises(Infeasible, match="n0 and n1 must share a device, but the first may only be on d0 and"):
        first_fit(problem)


def test_a_node_without_a_device_is_named() -> None:
    problem = problem_of([1, 1], [9, 9])
    problem.time_s[1] = np.inf
    with pytest.raises(Infeasible, match="n1 may run on no device"):
        first_fit(problem)
