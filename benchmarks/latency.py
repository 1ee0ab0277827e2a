"""Latency of one sample against list schedulers and a learned search, over models compiled by our own front end.

    python -m benchmarks.latency [MODEL ...] [--time-limit 10] [--memory SHARE] [--whole-only] [--json]

Four unequal devices, each with one send and one receive port (Moirai's model), 10 Gbit/s between them. A ratio is
our makespan over a baseline's: below 1, ours is better. The second table solves each model again without fusion, one
node per operator, the time of a fused primitive shared out among its operators: what coarsening saves in search, and
what it costs or gains in quality when the time is short. `--memory 0.5` gives each device room for half of the
weights. Exit 1 if a ratio is above 1, or the checker refuses a schedule. Both tables of all models, with the usual
limit, become `results/latency.txt`; those with `--memory 0.5`, for example, `results/latency_memory_0.5.txt`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from benchmarks.baselines.getf import getf
from benchmarks.baselines.heft import heft
from benchmarks.baselines.m_etf import m_etf
from benchmarks.baselines.m_sct import m_sct
from benchmarks.baselines.placeto import placeto
from benchmarks.checker import check
from benchmarks.described import TEN_GIGABIT, Kind, described
from benchmarks.problems import NAMES, fused, fused_problem, operator_problem
from benchmarks.results_file import save, text_of
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.passes.objectives.latency import OBJECTIVE as LATENCY
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Limits, Progress
from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.passes.placement.solve import solve
from tvmpipe.targets.description.cluster import Cluster

MODELS = (
    *("vit_base", "swin_tiny", "gpt2", "bert_base", "resnet50", "inception_v1", "inception_v2"),
    *("densenet121", "mobilenet_v2", "squeezenet", "shufflenet", "vgg19", "unet"),
)
SECONDS = 10.0
"""For each search, unless the command line says otherwise."""

EVALUATIONS = 150
BASELINES: dict[str, Callable[[Problem], Solution]] = {
    "heft": heft,
    "m-etf": m_etf,
    "m-sct": m_sct,
    "getf": getf,
    "placeto-like": lambda problem: placeto(problem, evaluations=EVALUATIONS),
}


def four_unequal(model: str, memory: float | None) -> Cluster:
    """Devices of about 140, 90, 90 and 30 GFLOP/s; with `memory`, each holds that share of the model's weights."""
    room = None
    if memory is not None:
        made = fused(model)
        primitives = made.graph.primitives
        largest = max(primitive.weight_bytes for primitive in primitives)
        # What an operator reads and writes may never be in memory when it is fused.
        working = max(one.input_bytes + one.output_bytes for one in (*primitives, *made.operators.primitives))
        room = max(int(memory * made.graph.all_weight_bytes), largest) + working
    kinds = [Kind("x86-64-v3", memory_bytes=room, threads=2), Kind("pi5", memory_bytes=room)]
    kinds += [Kind("x86-64-v2", memory_bytes=room), Kind("pi4", memory_bytes=room)]
    return described(kinds, TEN_GIGABIT)


def whole(model: str, memory: float | None = None) -> Problem:
    """A model on four unequal devices, one node for each fused primitive."""
    return replace(fused_problem(fused(model), four_unequal(model, memory), LATENCY), contention="port")


def by_operators(model: str, memory: float | None = None) -> Problem:
    """The same with one node for each operator."""
    return replace(operator_problem(fused(model), four_unequal(model, memory), LATENCY), contention="port")


def searched(problem: Problem, limits: Limits) -> tuple[Solution, dict[str, Any]]:
    """Our schedule, and its row: figures, when the search ended, and when it last got better."""
    started = time.perf_counter()
    last: list[tuple[float, float]] = []

    def listen(progress: Progress) -> None:
        if not last or progress.figure_s < last[-1][1]:
            last.append((time.perf_counter() - started, progress.figure_s))

    found = solve(problem, limits, listen)
    seconds = time.perf_counter() - started
    return found, {
        "nodes": problem.node_count,
        "makespan": found.figure_s,
        "bound": found.bound_s,
        "origin": found.origin,
        "seconds": seconds,
        "last_better_seconds": last[-1][0] if last else seconds,
        "faults": list(check(problem, found).faults),
    }


def measure(model: str, limits: Limits, memory: float | None, whole_only: bool) -> dict[str, Any]:
    """Everything of one model."""
    problem = whole(model, memory)
    ours, row = searched(problem, limits)
    row = {"model": model, **row, "baselines": {}, "baseline_seconds": {}, "ratios": {}}
    for name, baseline in BASELINES.items():
        started = time.perf_counter()
        try:
            found = baseline(problem)
        except Infeasible:
            row["baselines"][name] = row["ratios"][name] = None
            continue
        row["baseline_seconds"][name] = time.perf_counter() - started
        row["faults"] += [f"{name}: {fault}" for fault in check(problem, found).faults]
        row["baselines"][name] = found.figure_s
        row["ratios"][name] = ours.figure_s / found.figure_s
    alone = problem.time_s.sum(axis=0)
    row["fastest_alone_compute"] = float(alone.min())
    row["devices_used"] = len(set(ours.device_of))
    if not whole_only:
        _, row["operators"] = searched(by_operators(model, memory), limits)
        row["faults"] += [f"operators: {fault}" for fault in row["operators"]["faults"]]
    return row


def shown(rows: Sequence[dict[str, Any]]) -> list[Table | str]:
    """Both tables, and what the checker found."""
    table = Table(title="Makespan on 4 unequal devices: ours over each baseline's")
    for column in ("model", "nodes", "ours", "gap", "devices", *BASELINES, "search"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        ratios = ("no fit" if ratio is None else f"{ratio:.3f}" for ratio in row["ratios"].values())
        used = str(row["devices_used"])
        table.add_row(row["model"], *_search(row)[:3], used, *ratios, f"{row['seconds']:.1f} s")
    parts: list[Table | str] = [table]
    both = [row for row in rows if "operators" in row]
    if both:
        table = Table(title="Search with and without coarsening by fused primitives")
        for column in ("model", "nodes", "makespan", "gap", "last better", "end"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for column in ("operators", "makespan ", "gap ", "last better ", "end ", "primitives / operators"):
            table.add_column(column, justify="right")
        for row in both:
            ratio = row["makespan"] / row["operators"]["makespan"]
            table.add_row(row["model"], *_search(row), *_search(row["operators"]), f"{ratio:.3f}")
        parts.append(table)
    return [*parts, *(f"{row['model']}: {fault}" for row in rows for fault in row["faults"])]


def _search(row: dict[str, Any]) -> list[str]:
    gap = max(0.0, 1 - row["bound"] / row["makespan"])
    return [
        str(row["nodes"]),
        f"{1e3 * row['makespan']:.2f} ms",
        "proven" if gap <= 1e-6 else f"{gap:.1%}",
        f"{row['last_better_seconds']:.1f} s",
        f"{row['seconds']:.1f} s",
    ]


def main() -> None:
    """Measure the models named on the command line, or thirteen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(NAMES))
    parser.add_argument("--time-limit", type=float, default=SECONDS, metavar="SECONDS", help="for each search")
    parser.add_argument("--memory", type=float, metavar="SHARE")
    parser.add_argument("--whole-only", action="store_true", help="leave the search over operators out")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.models) - set(NAMES)
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}; allowed: {', '.join(NAMES)}")
    limits = Limits(time_limit_s=arguments.time_limit)
    rows = []
    for model in arguments.models or MODELS:
        rows.append(measure(model, limits, arguments.memory, arguments.whole_only))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if not arguments.models and arguments.time_limit == SECONDS and not arguments.whole_only:
        name = "latency" if arguments.memory is None else f"latency_memory_{arguments.memory:g}"
        save(f"{name}.txt", text_of(*shown(rows), width=150))
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        print(text_of(*shown(rows), width=150), end="")
    above = any(ratio is not None and ratio > 1 + 1e-9 for row in rows for ratio in row["ratios"].values())
    sys.exit(1 if above or any(row["faults"] for row in rows) else 0)


if __name__ == "__main__":
    reserve_stdout()
    main()
