"""Graphs as chains: what passes a boundary is what PipeEdge counts there, and plans are no worse than its own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from benchmarks.baselines.pipeedge import pipeedge
from tests.passes.placement.problems import problems
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.reduce.chain_order import in_line
from tvmpipe.passes.placement.reduce.multilevel import steady_order
from tvmpipe.passes.placement.reduce.presolve import grouped_nodes
from tvmpipe.passes.placement.throughput.chain import best_chain, chain_order
from tvmpipe.passes.placement.throughput.period import loads


@settings(max_examples=100, deadline=None, derandomize=True)
@given(problem=problems(models=("overlapped",), contentions=("pair",), max_nodes=7))
def test_boundaries_and_plans(problem: Problem) -> None:
    whole = grouped_nodes(problem)
    base = whole.problem
    chain, order = in_line(base), steady_order(base)
    assert chain_order(chain) == order
    place = {node: index for index, node in enumerate(order)}
    for index, node in enumerate(order[:-1]):
        (passed,) = chain.outputs[node][:1]
        lives = [
            tensor.size_bytes
            for tensor in base.tensors
            if tensor.producer is not None
            for ends in [[place[tensor.producer], *(place[reader] for reader in tensor.consumers)]]
            if min(ends) <= index < max(ends)
        ]
        assert chain.tensors[passed].size_bytes == pytest.approx(sum(lives))
    placed, _, _ = best_chain(chain, 0.0, 1e6, Deadline(20.0))
    if placed is None or problem.groups or order != base.order or any(not t.consumers for t in base.tensors):
        return
    try:
        published = pipeedge(problem, "nodes")
    except Infeasible:
        return
    assert loads(chain, placed).period_s <= loads(chain, whole.lower(published.device_of) or ()).period_s * (1 + 1e-6)
