"""The recurrent kernel: its register tile, what it counts, and how its loops are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.frontend.converters.test_recurrent import Network
from tvmpipe.build import build
from tvmpipe.passes import driver
from tvmpipe.passes.graph.primitive_features import works_of
from tvmpipe.passes.kernels.recurrent.activations import Activation
from tvmpipe.passes.kernels.recurrent.compute import recurrent
from tvmpipe.passes.kernels.recurrent.cost import recurrent_tile
from tvmpipe.passes.kernels.recurrent.layer import CellKind, Recurrence
from tvmpipe.passes.kernels.schedule import schedule_function
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.cost.kernel_costs import phases
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import parse_cluster
from tvmpipe.targets.description.cpu_model import describe_cpu

SIGMOID, TANH = Activation("sigmoid"), Activation("tanh")
CELLS: dict[CellKind, tuple[Activation, ...]] = {"lstm": (SIGMOID, TANH, TANH), "gru": (SIGMOID, TANH), "rnn": (TANH,)}


def layer(cell: CellKind, hidden: int, **more: Any) -> Any:
    return recurrent(Recurrence(cell, 500, 1, hidden, (False,), (CELLS[cell],), ("sequence",), **more))


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4", "pi4"])
@pytest.mark.parametrize("gates", [1, 2, 3, 4])
def test_tiles_fit_registers_and_hide_the_latency(target: str, gates: int) -> None:
    cpu = describe_cpu(find_target(target), 1)
    for rows, blocks in ((1, 16), (1, 5), (4, 16), (6, 32)):
        height, width = recurrent_tile(rows, blocks, gates, cpu)
        sums = height * width * gates * 16 // cpu.lanes
        assert rows % height == 0
        assert blocks % width == 0
        assert sums <= max(cpu.registers - 3, gates * 16 // cpu.lanes)
        assert sums >= 6 or blocks % 2  # two units with a latency of four cycles want eight


@pytest.mark.parametrize("cell", CELLS)
def test_time_is_one_loop_and_products_are_vectors(cell: CellKind) -> None:
    """As long for 500 steps as for one; float64 and quantised weights are cut alike."""
    cpu = describe_cpu(find_target("x86-64-v3"), 1)
    for more in ({}, {"dtype": "float64", "weight_dtype": "float64"}, {"weight_dtype": "int8"}):
        text = schedule_function(layer(cell, 64, **more), cpu).script()
        assert text.count("T.grid(1, 500)") == 1
        assert "product_update" in text  # the sum is started outside of its loop
        assert text.count("T.vectorized(8)") >= 6


def test_work_counts_all_steps() -> None:
    """The product's extents and time are what features and phases see; the cell adds to its arithmetic."""
    network = Network(3)
    network.layer("LSTM", 32, "bidirectional", optional="bias")
    fused = driver.front(network.model())
    (work,) = (work for work in works_of(fused.graph, fused.module) if work.kernel == "recurrent")
    assert (work.spatial, work.reduction) == ((2, 3, 2, 4, 16), (6, 32))
    assert work.flops == 2 * 6 * 2 * 3 * 4 * 32 * 32
    assert work.flops < work.arithmetic < 4 * work.flops
    one, two = (phases(work, find_target("x86-64-v3"), threads) for threads in (1, 2))
    assert one.cycles == pytest.approx(2 * two.cycles)  # directions beside each other
    assert one.cycles >= work.flops / 2 / 16  # two multiply-adds of eight lanes in a cycle


def test_layers_on_two_devices() -> None:
    """Each knows its node, by which it is pinned."""
    network = Network(5)
    network.layer("LSTM", 24, "bidirectional")
    network.layer("GRU", 16)
    cluster = parse_cluster(
        '[[device]]\nname = "a"\nthreads = 1\n[[device]]\nname = "b"\nthreads = 1\n'
        '[[link]]\nbetween = ["a", "b"]\nbandwidth = "1Gbps"\n'
    )
    bundle = build(network.model(), cluster, pins={"l0": "a", "l1": "b"})
    assert len(bundle.manifest.plans[0].stages) > 1
    with run_in_process(bundle) as pipe:
        found = pipe.run(network.inputs)
    for name, wanted in network.expected().items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-5, rtol=0)
