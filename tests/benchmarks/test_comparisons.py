"""The comparisons' rows on small problems: ratios, what does not fit, and stages in turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import clusters, latency
from benchmarks.problems import fuse
from benchmarks.results_file import text_of
from tests.models import branchy
from tvmpipe.passes.placement.limits import Limits
from tvmpipe.passes.placement.problem import Problem, Solution, Tensor


def chain(times: list[list[float]]) -> Problem:
    """Layers of one byte of weights, tensors that take no time, devices as the columns say."""
    nodes, devices = np.array(times).shape
    return Problem(
        names=tuple(str(node) for node in range(nodes)),
        devices=tuple(f"d{device}" for device in range(devices)),
        time_s=np.array(times),
        weight_bytes=np.ones(nodes),
        working_bytes=np.zeros(nodes),
        memory_bytes=np.full(devices, np.inf),
        tensors=tuple(Tensor(node, (node + 1,)) for node in range(nodes - 1)),
        bandwidth_bps=np.ones((devices + 1, devices + 1)),
        latency_s=np.zeros((devices + 1, devices + 1)),
        model="overlapped",
    )


def row(problem: Problem) -> dict[str, Any]:
    return clusters.measure(clusters.Pair("kind", "cluster", "model", lambda: problem), Limits(time_limit_s=2))


def test_a_row_says_how_much_the_homogeneous_assumption_costs() -> None:
    # Nine layers; one device is five times as slow as the two others. PipeDream gives it three, the best plans one or
    # none.
    found = row(chain([[5.0, 1.0, 1.0]] * 9))
    assert found["ours"] == pytest.approx(5.0)
    assert found["pipeedge"] == pytest.approx(5.0)
    assert found["pipedream"] == pytest.approx(15.0)
    assert found["ratios"]["pipedream"] == pytest.approx(3.0)
    assert found["spread"] == pytest.approx((1 + 5 + 5) / 3)
    assert found["faults"] == []


def test_plans_that_do_not_fit_are_counted_apart() -> None:
    tight = replace(chain([[1.0, 1.0]] * 4), memory_bytes=np.array([1.0, 3.0]))
    rows = [row(tight), row(chain([[1.0, 1.0]] * 4))]
    total = clusters.summary(rows)
    assert rows[0]["ours"] == pytest.approx(3.0)
    assert rows[0]["pipedream"] is None
    assert (total["pipedream"]["pairs"], total["pipedream"]["does_not_fit"]) == (1, 1)
    assert total["worse"] == total["faults"] == []
    assert "no fit" in text_of(*clusters.shown(rows, total))


def test_stages_in_turn_are_priced_over_a_whole_turn() -> None:
    problem = chain([[6.0, 6.0, 2.0], [3.0, 3.0, 1.0]])
    groups = ((0, 1), (2,))
    assert clusters.in_turn_s(problem, Solution((0, 1), 3.0, 0.0, "by hand"), groups) == pytest.approx(3.0)
    full = replace(problem, memory_bytes=np.array([9.0, 0.5, 9.0]))
    assert clusters.in_turn_s(full, Solution((0, 1), 3.0, 0.0, "by hand"), groups) == float("inf")


def test_what_loses_is_named() -> None:
    found = row(chain([[1.0, 1.0]] * 2))
    found["ratios"] = {"pipedream": 0.5, "pipedream_in_turn": None, "pipeedge": 1.0}
    assert clusters.summary([found])["worse"] == ["cluster: model: pipedream"]


@pytest.mark.parametrize("memory", [None, 0.6])
def test_latency_is_compared_over_primitives_and_operators(
    monkeypatch: pytest.MonkeyPatch, memory: float | None
) -> None:
    model = fuse(branchy())
    monkeypatch.setattr(latency, "fused", lambda name: model)
    found = latency.measure("branchy", Limits(time_limit_s=2), memory, whole_only=False)
    assert found["faults"] == []
    assert set(found["ratios"]) == set(latency.BASELINES)
    assert all(ratio is None or ratio <= 1 + 1e-9 for ratio in found["ratios"].values())
    assert found["operators"]["nodes"] > found["nodes"]
    assert found["model"] in text_of(*latency.shown([found]))
