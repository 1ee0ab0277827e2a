"""Plans for large graphs on many mixed devices: figure, bound, gap and seconds.

    python -m benchmarks.scale [--scale 1] [--time-limit SECONDS] [--only TEXT] [--json]

Graphs are random and seeded. Nodes take multiply-adds and bytes, devices have rates for both (a roofline), so that
kinds of devices are good at different nodes. The table of all cases, as they are, becomes `results/scale.txt`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.checker import check
from benchmarks.results_file import save, text_of
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.passes.placement.latency.instance import read
from tvmpipe.passes.placement.latency.list_scheduling import by_rank
from tvmpipe.passes.placement.limits import Limits
from tvmpipe.passes.placement.problem import Contention, Model, Problem, Tensor
from tvmpipe.passes.placement.solve import solve
from tvmpipe.passes.placement.throughput.period import loads


@dataclass(frozen=True)
class Board:
    """A kind of device: multiply-adds and bytes per second, memory in bytes, bytes per second of its network port."""

    name: str
    rate: float
    stream_bps: float
    memory_bytes: float
    port_bps: float


BOARDS = (
    Board("small", 8e9, 3e9, 1 * 2.0**30, 40e6),
    Board("medium", 24e9, 9e9, 2 * 2.0**30, 110e6),
    Board("server", 90e9, 20e9, 8 * 2.0**30, 110e6),
    Board("accelerator", 200e9, 25e9, 2 * 2.0**30, 110e6),
)
LATENCY_S = 2e-4


def random_graph(nodes: int, seed: int, reach: int = 12) -> list[tuple[int, ...]]:
    """For each node the nodes that it reads: one or two of the last `reach`, now and then one from far back."""
    rng = np.random.default_rng(seed)
    reads: list[tuple[int, ...]] = [()]
    for node in range(1, nodes):
        count = int(rng.integers(1, 3))
        near = {int(x) for x in rng.integers(max(0, node - reach), node, count)}
        if rng.random() < 0.02:
            near.add(int(rng.integers(0, node)))
        reads.append(tuple(sorted(near)))
    # Nobody computes what is not read: all but the last node have a reader.
    unread = set(range(nodes - 1)) - {source for sources in reads for source in sources}
    for node in unread:
        reader = int(rng.integers(node + 1, min(nodes, node + 1 + reach)))
        reads[reader] = tuple(sorted({*reads[reader], node}))
    return reads


def layers(nodes: int, width: int, seed: int) -> list[tuple[int, ...]]:
    """Layers of `width` nodes that each read one to three of the layer before; the first layer reads node 0."""
    rng = np.random.default_rng(seed)
    reads: list[tuple[int, ...]] = []
    for node in range(nodes):
        layer = node // width
        if layer == 0:
            reads.append((0,) if node else ())
        else:
            drawn = rng.integers((layer - 1) * width, layer * width, int(rng.integers(1, 4)))
            reads.append(tuple(sorted({int(x) for x in drawn})))
    return reads


def chain(nodes: int) -> list[tuple[int, ...]]:
    """Every node reads the one before it."""
    return [(node - 1,) if node else () for node in range(nodes)]


def mixed_problem(
    reads: list[tuple[int, ...]],
    counts: tuple[int, ...],
    seed: int,
    *,
    model: Model = "overlapped",
    contention: Contention = "pair",
    contiguous: bool = False,
) -> Problem:
    """A graph with random costs on so many of each of BOARDS."""
    rng = np.random.default_rng(seed)
    nodes = len(reads)
    dense = rng.random(nodes) < 0.4
    work = np.where(dense, rng.lognormal(17.5, 1.0, nodes), rng.lognormal(13.0, 1.0, nodes))
    output = rng.lognormal(11.0, 0.8, nodes)
    weights = np.where(dense, rng.lognormal(13.5, 1.0, nodes), 0.0)
    boards = [board for board, count in zip(BOARDS, counts, strict=True) for _ in range(count)]
    consumers: list[list[int]] = [[] for _ in reads]
    for node, sources in enumerate(reads):
        for source in sources:
            consumers[source].append(node)
    incoming = np.array([sum(output[source] for source in sources) for sources in reads])
    moved = incoming + output + weights
    ports = np.array([board.port_bps for board in boards] + [110e6])
    return Problem(
        names=tuple(f"n{node}" for node in range(nodes)),
        devices=tuple(f"{board.name}{index}" for index, board in enumerate(boards)),
        time_s=np.array([np.maximum(work / board.rate, moved / board.stream_bps) for board in boards]).T,
        weight_bytes=weights,
        working_bytes=incoming + output,
        memory_bytes=np.array([board.memory_bytes for board in boards]),
        tensors=(
            Tensor(None, (0,), float(output[0])),
            *(Tensor(n, tuple(to), float(output[n]), to_head=not to) for n, to in enumerate(consumers)),
        ),
        bandwidth_bps=np.minimum.outer(ports, ports),
        latency_s=np.full((len(boards) + 1, len(boards) + 1), LATENCY_S),
        model=model,
        contention=contention,
        contiguous=contiguous,
    )


def cases(scale: float = 1.0) -> dict[str, tuple[Problem, float]]:
    """Name -> problem and seconds; `scale` shrinks the graphs."""
    graph = random_graph(int(2000 * scale), 1)
    line = chain(int(10_000 * scale))
    few, many = (4, 4, 4, 4), (24, 20, 12, 8)
    dag = mixed_problem(graph, few, 2)
    return {
        "DAG, overlapped, link a pair": (dag, 60.0),
        "DAG, overlapped, one port": (replace(dag, contention="port"), 60.0),
        "DAG, summed": (replace(dag, model="summed"), 60.0),
        "DAG, overlapped, contiguous": (replace(dag, contiguous=True), 60.0),
        "DAG, latency, one port": (replace(dag, model="makespan", contention="port"), 60.0),
        "wide DAG, latency, link a pair": (
            mixed_problem(random_graph(int(3000 * scale), 7, 40), few, 8, model="makespan"),
            60.0,
        ),
        "layers, latency, one port": (
            mixed_problem(layers(int(4000 * scale), 25, 3), (2, 2, 2, 2), 4, model="makespan", contention="port"),
            60.0,
        ),
        "chain, overlapped, contiguous": (mixed_problem(line, many, 3, contiguous=True), 10.0),
        "chain, overlapped": (mixed_problem(line, many, 3), 10.0),
    }


def _figure_s(problem: Problem, device_of: tuple[int, ...]) -> float:
    """Period or makespan of everything on one device."""
    if problem.model != "makespan":
        return loads(problem, device_of).period_s
    inst = read(problem)
    return by_rank(inst, device_of).makespan


def measure(name: str, problem: Problem, limit_s: float) -> dict[str, Any]:
    """One row: figures in milliseconds, seconds, faults."""
    started = time.monotonic()
    found = solve(problem, Limits(limit_s))
    took = time.monotonic() - started
    everything = [(device,) * problem.node_count for device in range(problem.device_count)]
    fitting = [one for one in everything if not problem.shortage_bytes(one).any()]
    single_s = min((_figure_s(problem, one) for one in fitting), default=float("inf"))
    return {
        "case": name,
        "nodes": problem.node_count,
        "devices": problem.device_count,
        "figure": "makespan" if problem.model == "makespan" else "period",
        "figure_ms": round(found.figure_s * 1e3, 4),
        "bound_ms": round(found.bound_s * 1e3, 4),
        "gap": round(found.gap, 5),
        "single_ms": round(single_s * 1e3, 3) if np.isfinite(single_s) else None,
        "seconds": round(took, 2),
        "limit_s": limit_s,
        "origin": found.origin,
        "faults": list(check(problem, found).faults),
    }


def shown(rows: Sequence[Mapping[str, Any]]) -> list[Table | str]:
    """The table, and what the checker found."""
    table = Table(title="Large graphs on many mixed devices")
    for column in (
        "case",
        "nodes",
        "devices",
        "figure",
        "ms",
        "bound",
        "gap",
        "best single device",
        "s",
        "limit",
        "by",
    ):
        table.add_column(column, justify="left" if column in ("case", "figure", "by") else "right")
    for row in rows:
        table.add_row(
            row["case"],
            str(row["nodes"]),
            str(row["devices"]),
            row["figure"],
            f"{row['figure_ms']:g}",
            f"{row['bound_ms']:g}",
            f"{row['gap']:.2%}",
            "none fits" if row["single_ms"] is None else f"{row['single_ms']:g} ms",
            f"{row['seconds']:.1f}",
            f"{row['limit_s']:g}",
            row["origin"],
        )
    return [table, *(f"{row['case']}: {fault}" for row in rows for fault in row["faults"])]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the graphs, 1 for 2,000 and 10,000 nodes")
    parser.add_argument("--time-limit", type=float, default=None, help="seconds for each, instead of the table's own")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for name, (problem, seconds) in cases(arguments.scale).items():
        if arguments.only in name:
            rows.append(measure(name, problem, arguments.time_limit or seconds))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if arguments.scale == 1.0 and arguments.time_limit is None and not arguments.only:
        save("scale.txt", text_of(*shown(rows)))
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        print(text_of(*shown(rows)), end="")
    sys.exit(any(row["faults"] for row in rows))


if __name__ == "__main__":
    reserve_stdout()
    main()
