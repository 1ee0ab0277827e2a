"""Primitives: which operators they hold, what they cost, how they connect."""

from __future__ import annotations

from pathlib import Path

from tests.models import branchy, chain
from tvmpipe.build import prepare
from tvmpipe.passes.cost import live_activation_bytes
from tvmpipe.passes.pipeline import FRONT, run_passes
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.targets.cluster import Cluster


def graph_of(model: object) -> PrimitiveGraph:
    graph = run_passes(prepare(model, Cluster((), {})), FRONT).graph
    assert graph is not None
    return graph


def test_dense_layers_fuse_with_their_activation() -> None:
    graph = graph_of(chain(3, 64))
    primitives = list(graph.by_name().values())
    assert [p.operators for p in primitives] == [("matmul", "tanh")] * 3
    assert [p.weight_bytes for p in primitives] == [64 * 64 * 4] * 3
    assert [p.input_bytes for p in primitives] == [4 * 64 * 4] * 3
    # 2 m n k for the product, and something for the activation.
    assert all(2 * 4 * 64 * 64 <= p.flops <= 2.2 * 4 * 64 * 64 for p in primitives)


def test_branches_are_edges(branchy_path: Path) -> None:
    graph = graph_of(branchy_path)
    dag = graph.digraph()
    stem = next(p.index for p in graph.primitives if "conv2d" in p.operators)
    assert dag.in_degree(stem) == 0
    assert max(dag.out_degree(node) for node in dag) >= 2
    assert max(dag.in_degree(node) for node in dag) >= 2
    assert set(graph.model_inputs) == {"image", "ids"}
    assert set(graph.model_outputs) == {"scores", "mask"}


def test_names_are_stable() -> None:
    assert list(graph_of(branchy()).by_name()) == list(graph_of(branchy()).by_name())


def test_weights_are_never_counted_as_tensors_between_primitives() -> None:
    graph = graph_of(chain(3, 64))
    made = {value for p in graph.primitives for value in p.outputs} | set(graph.model_inputs.values())
    assert all(value in made for p in graph.primitives for value in p.inputs)


def test_live_bytes_of_a_chain() -> None:
    """While a dense layer runs, its input and its result are alive and nothing else."""
    assert live_activation_bytes(graph_of(chain(3, 64))) == (2 * 4 * 64 * 4,) * 3
