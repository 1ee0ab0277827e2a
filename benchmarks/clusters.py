"""Periods on mixed clusters against PipeDream's planner and PipeEdge's dynamic program.

    python -m benchmarks.clusters [--time-limit 5] [--only TEXT] [--workloads FOLDER] [--json]

Every pair of a cluster and a model is priced in PipeEdge's model; what a baseline plans is priced as it truly runs.
A ratio is the baseline's period over ours: above 1, ours is better. Each baseline gets the better of two ways to make
a graph a chain. "in turn" compares plans whose stages may be on several devices in round robin, PipeDream's with ours,
priced by the same count over a whole turn. Exit 1 if a plan of ours is worse than a baseline's, or refused by the
checker.

Where PipeDream loses most: it gives each device the same work, so that its period is the slowest device's, and takes
every link for a mean one. With links that do not bind, the ratio tends to (mean speed / least speed) of the devices,
"spread" in the table. Clusters of the kind "strongly mixed" are those where EdgePipe's 4.16x lies within reach.
The table of all pairs, with the usual limit, becomes `results/clusters.txt`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.baselines.pipedream import pipedream, pipedream_replicated, replicated_period_s
from benchmarks.baselines.pipeedge import pipeedge
from benchmarks.checker import check
from benchmarks.described import FAST_ETHERNET, GIGABIT, TEN_GIGABIT, WIFI, Kind, described
from benchmarks.optima import WORKLOADS
from benchmarks.problems import fused, fused_problem
from benchmarks.results_file import save, text_of
from benchmarks.workloads import pipeedge as boards
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.passes.objectives.throughput import OBJECTIVE as THROUGHPUT
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Limits
from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.passes.placement.solve import solve
from tvmpipe.passes.placement.throughput.replicas import Groups, least_period_replicated
from tvmpipe.targets.description.cluster import Cluster

SECONDS = 5.0
"""For each search, unless the command line says otherwise."""

EDGEPIPE = 4.16
"""The largest gain over PipeDream that EdgePipe's paper reports (Hu et al., arXiv 2110.14895)."""


@dataclass(frozen=True)
class Pair:
    """A cluster, a model, and how to make the problem."""

    kind: str
    cluster: str
    model: str
    make: Callable[[], Problem]


def pairs(workloads: Path) -> Iterator[Pair]:
    """Every pair of the benchmark; those of measured boards only where the public workloads are."""
    for kind, name, cluster, models in _described():
        for model in models:
            yield Pair(kind, name, model, partial(_compiled, model, cluster))
    for model in ("vit_base", "gpt2", "vgg19"):
        yield Pair("little memory", _LITTLE, model, partial(_little_memory, model))
    if (workloads / "pipeedge").is_dir():
        yield from _boards(workloads / "pipeedge")


def _described() -> Iterator[tuple[str, str, Cluster, Sequence[str]]]:
    for half in (2, 4, 8):
        cluster = described([Kind("pi4", half), Kind("pi5", half)])
        models = {2: ("resnet50", "bert_base"), 4: ("vit_base", "inception_v2"), 8: ("vit_large", "gpt2")}[half]
        yield "two kinds", f"pi4 x{half} + pi5 x{half}, gigabit", cluster, models
    fast_and_slow = [Kind("pi4", 3), Kind("x86-64-v3")]
    yield "slow and fast", "pi4 x3 + x86-64-v3, gigabit", described(fast_and_slow), ("vit_base", "vgg19", "unet")
    mixed = [Kind("pi4"), Kind("jetson-nano"), Kind("pi5"), Kind("jetson-orin")]
    yield "four kinds", "pi4 + jetson-nano + pi5 + jetson-orin", described(mixed), ("swin_tiny", "densenet121", "gpt2")
    slow = [Kind("pi4", 2), Kind("pi5", 2)]
    for link, name in ((FAST_ETHERNET, "100 Mbit/s"), (WIFI, "20 Mbit/s")):
        yield "slow links", f"pi4 x2 + pi5 x2, {name}", described(slow, link), ("vit_base", "resnet50", "bert_base")
    islands = {(0, 0): GIGABIT, (1, 1): GIGABIT, (0, 1): WIFI}
    apart = described([Kind("pi5", 3), Kind("jetson-orin", 3)], GIGABIT, islands)
    yield "slow links", "pi5 x3 / 20 Mbit/s / jetson-orin x3", apart, ("vit_base", "bert_base")
    strong = [Kind("pi4", 2), Kind("pi5", 2), Kind("x86-64-v3", 2)]
    near = described(strong, TEN_GIGABIT, head_at=2)
    name = "pi4 x2 + pi5 x2 + x86-64-v3 x2, 10 gigabit"
    yield "strongly mixed", name, near, ("vit_base", "bert_base", "densenet121")
    far = {(0, 0): WIFI, (0, 1): WIFI, (0, 2): WIFI}
    weak = described(strong, TEN_GIGABIT, far, head_at=2)
    yield "strongly mixed", "the same with the pi4 at 20 Mbit/s", weak, ("vit_base", "bert_base", "resnet50")


def _compiled(model: str, cluster: Cluster) -> Problem:
    return fused_problem(fused(model), cluster, THROUGHPUT)


_LITTLE = "pi5 x2 with 1/4 of the weights each + pi4 x4 with 1/3"


def _little_memory(model: str) -> Problem:
    """Fast devices with less memory than slow ones, all far too small for the model."""
    graph = fused(model).graph
    weights = graph.all_weight_bytes
    largest = max(primitive.weight_bytes for primitive in graph.primitives)
    working = max(primitive.input_bytes + primitive.output_bytes for primitive in graph.primitives)
    room = [int(max(share * weights, largest)) + working for share in (1 / 4, 1 / 3)]
    cluster = described([Kind("pi5", 2, room[0]), Kind("pi4", 4, room[1])])
    return _compiled(model, cluster)


def _boards(folder: Path) -> Iterator[Pair]:
    """The boards that PipeEdge was measured on; some of them throttled, as in EdgePipe's mixed clusters."""
    names = {"ViT-Base": "google/vit-base-patch16-224", "ViT-Large": "google/vit-large-patch16-224"}
    for half in (2, 4, 8):
        for model, key in names.items():
            read = partial(_read, folder, key, half)
            yield Pair("two kinds", f"MinnowBoard x{half} + RCC-VE x{half}", model, read)
    for slowdown, mbps in ((4.0, 1000.0), (8.0, 1000.0), (8.0, 20.0)):
        name = f"MinnowBoard x8, {slowdown:g} times slower, {mbps:g} Mbps + RCC-VE x8"
        for model, key in names.items():
            yield Pair("strongly mixed", name, model, partial(_throttled, folder, key, 8, slowdown, mbps))


def _read(folder: Path, model: str, half: int) -> Problem:
    return boards.read(folder, model=model, boards=[("Minnow", half), ("RCC-VE", half)]).problem


def _throttled(folder: Path, model: str, half: int, slowdown: float, mbps: float) -> Problem:
    """The first half of the boards, slower by a factor and behind slower links."""
    problem = _read(folder, model, half)
    times, bandwidth = problem.time_s.copy(), problem.bandwidth_bps.copy()
    times[:, :half] *= slowdown
    slow = mbps * 2**20 / 8
    count = problem.device_count
    bandwidth[:half, :count] = np.minimum(bandwidth[:half, :count], slow)
    bandwidth[:count, :half] = np.minimum(bandwidth[:count, :half], slow)
    return replace(problem, time_s=times, bandwidth_bps=bandwidth)


def measure(pair: Pair, limits: Limits) -> dict[str, Any]:
    """One row: periods in seconds (None where nothing fits), ratios, faults."""
    problem = pair.make()
    started = time.perf_counter()
    ours = solve(problem, limits)
    seconds = time.perf_counter() - started
    faults = list(check(problem, ours).faults)
    ours_in_turn = min(ours.figure_s, in_turn_s(problem, *least_period_replicated(problem, limits)))
    baselines: dict[str, float | None] = {}
    for name, planner in (("pipedream", pipedream), ("pipeedge", pipeedge)):
        found = [_tried(partial(planner, problem, chain)) for chain in ("blocks", "nodes")]
        for solution in found:
            faults += [] if solution is None else [f"{name}: {fault}" for fault in check(problem, solution).faults]
        baselines[name] = min((solution.figure_s for solution in found if solution is not None), default=None)
    turns = [_tried(partial(pipedream_replicated, problem, chain)) for chain in ("blocks", "nodes")]
    baselines["pipedream_in_turn"] = min((one.period_s for one in turns if one is not None), default=None)
    own = {"pipedream": ours.figure_s, "pipedream_in_turn": ours_in_turn, "pipeedge": ours.figure_s}
    speed = 1 / problem.time_s.sum(axis=0)
    return {
        "kind": pair.kind,
        "cluster": pair.cluster,
        "model": pair.model,
        "nodes": problem.node_count,
        "devices": problem.device_count,
        "spread": float(speed.mean() / speed.min()),
        "ours": ours.figure_s,
        "ours_in_turn": ours_in_turn,
        "bound": ours.bound_s,
        "origin": ours.origin,
        "seconds": seconds,
        **baselines,
        "ratios": {name: None if figure is None else figure / own[name] for name, figure in baselines.items()},
        "faults": faults,
    }


def in_turn_s(problem: Problem, solution: Solution, groups: Groups) -> float:
    """The true period of a placement on groups of devices, infinite where a member cannot hold what it gets."""
    stages = []
    shortage = 0.0
    for number, group in enumerate(groups):
        nodes = [node for node, placed in enumerate(solution.device_of) if placed == number]
        if nodes:
            stages.append((tuple(nodes), tuple(group)))
            held = problem.need_bytes(nodes)
            shortage = max(shortage, held - problem.memory_bytes[list(group)].min())
    return float("inf") if shortage > 0 else replicated_period_s(problem, stages)


def _tried(planner: Callable[[], Any]) -> Any:
    try:
        return planner()
    except Infeasible:
        return None


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median and largest ratio for each baseline, how many of its plans did not fit, and what went wrong."""
    found: dict[str, Any] = {}
    for name in ("pipedream", "pipedream_in_turn", "pipeedge"):
        ratios = [row["ratios"][name] for row in rows if row["ratios"][name] is not None]
        found[name] = {
            "pairs": len(ratios),
            "median": statistics.median(ratios) if ratios else None,
            "largest": max(ratios, default=None),
            "least": min(ratios, default=None),
            "does_not_fit": len(rows) - len(ratios),
        }
    at_edgepipe = [row for row in rows if (row["ratios"]["pipedream"] or 0.0) >= EDGEPIPE]
    found["kinds_at_edgepipe"] = sorted({row["kind"] for row in at_edgepipe})
    found["worse"] = [
        f"{row['cluster']}: {row['model']}: {name}"
        for row in rows
        for name, ratio in row["ratios"].items()
        if ratio is not None and ratio < 1 - 1e-9
    ]
    found["faults"] = [f"{row['cluster']}: {row['model']}: {fault}" for row in rows for fault in row["faults"]]
    return found


def shown(rows: Sequence[dict[str, Any]], total: dict[str, Any]) -> list[Table | str]:
    """The table, and the lines of the summary below it."""
    table = Table(title="Period per sample, and baselines' periods over ours")
    for column in ("cluster", "model", "spread", "ours", "gap", "ours in turn", "PipeDream", "in turn", "PipeEdge"):
        table.add_column(column, justify="left" if column in ("cluster", "model") else "right")
    for row in rows:
        ratio = {name: "no fit" if value is None else f"{value:.2f}" for name, value in row["ratios"].items()}
        gap = max(0.0, 1 - row["bound"] / row["ours"])
        table.add_row(
            row["cluster"],
            row["model"],
            f"{row['spread']:.2f}",
            f"{1e3 * row['ours']:.2f} ms",
            "proven" if gap <= 1e-6 else f"{gap:.1%}",
            f"{1e3 * row['ours_in_turn']:.2f} ms",
            ratio["pipedream"],
            ratio["pipedream_in_turn"],
            ratio["pipeedge"],
        )
    lines: list[Table | str] = [table]
    for name, title in (("pipedream", "PipeDream"), ("pipedream_in_turn", "in turn"), ("pipeedge", "PipeEdge")):
        one = total[name]
        if one["pairs"]:
            lines.append(
                f"{title}: median {one['median']:.2f}, largest {one['largest']:.2f}, least {one['least']:.2f} over "
                f"{one['pairs']} pairs; {one['does_not_fit']} where its plan does not fit"
            )
    kinds = ", ".join(total["kinds_at_edgepipe"]) or "none"
    lines.append(f"Kinds of cluster with at least EdgePipe's {EDGEPIPE} over PipeDream: {kinds}")
    return [*lines, *total["faults"], *(f"worse than a baseline: {one}" for one in total["worse"])]


def main() -> None:
    """Measure all pairs, or those whose cluster, kind or model has a text in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=SECONDS, metavar="SECONDS")
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--workloads", type=Path, default=WORKLOADS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not (arguments.workloads / "pipeedge").is_dir():
        print(f"{arguments.workloads} has no pipeedge folder: its measured boards are left out", file=sys.stderr)
    rows = []
    for pair in pairs(arguments.workloads):
        if arguments.only in f"{pair.kind} {pair.cluster} {pair.model}":
            rows.append(measure(pair, Limits(time_limit_s=arguments.time_limit)))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    total = summary(rows)
    if not arguments.only and arguments.time_limit == SECONDS and (arguments.workloads / "pipeedge").is_dir():
        save("clusters.txt", text_of(*shown(rows, total), width=150))
    if arguments.json:
        print(json.dumps({"rows": rows, "summary": total}, indent=1))
    else:
        print(text_of(*shown(rows, total), width=150), end="")
    sys.exit(1 if total["worse"] or total["faults"] else 0)


if __name__ == "__main__":
    reserve_stdout()
    main()
