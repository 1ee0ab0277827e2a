"""Tokens per second over equal and unequal emulated devices.

    python -m benchmarks.sequences.scale [--devices 1,2,4,8] [--slowdown 80] [--tokens 45] [--record]

Each device is an agent on this machine that computes for real on one thread and then waits, as one would that is
`--slowdown` times slower, so that this machine's cores are enough for all of them; its link is a gigabit's, emulated
too. Twice as many sequences as devices generate at once. Then one sequence alone, on one device and on four; and three
unequal devices of which none holds the model, against splits that look at the number of devices or at their memory.

distributed-llama's README (version 0.3.1, Llama 2 7B in Q40) has 441 ms for a token on one Raspberry Pi 5 and 219 ms on
four, by tensor parallelism.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import onnx
from rich.table import Table

import tvmpipe
from benchmarks.described import GIGABIT, Kind, described
from benchmarks.emulated import agent_of
from benchmarks.results_file import save, text_of
from benchmarks.sequences.greedy import Greedy, Text, prompts
from benchmarks.sequences.models import SHAPES, llama
from benchmarks.sequences.running import compile_as, cut_layers, fuse, generate
from tvmpipe.bundle import Bundle
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.generation.pipeline_model import PipelineModel
from tvmpipe.passes import driver
from tvmpipe.passes.options import BuildOptions
from tvmpipe.runtime.emulation.local_cluster import local_cluster
from tvmpipe.targets.description.cluster import Cluster

SHAPE = SHAPES["medium"]
SEQUENCES = 16
PROMPT = 16
WARM = 18  # tokens of a sequence before it counts: emulated devices go by their latest 15 runs
DISTRIBUTED_LLAMA = {1: "1", 2: "1.29", 4: "2.01"}
WANTED = {2: 1.9, 4: 3.7, 8: 7.0}
UNEQUAL = ((1, 0.65), (2, 0.65), (4, 0.95))
"""How many times slower each is than the fastest, and how much of the model its memory holds."""


@dataclass(frozen=True)
class Rate:
    """Tokens per second, the median seconds from a token to the next of its sequence, and of those in stages."""

    tokens_per_s: float
    token_s: float
    compute_s: float
    texts: tuple[Text, ...]


def equal(count: int, slowdown: float) -> Cluster:
    """Equal devices on a gigabit network."""
    return described([Kind("native", count, slowdown=slowdown, threads=1)], GIGABIT)


def unequal(slowdown: float, model_bytes: int) -> Cluster:
    """Devices of which none holds the model."""
    kinds = [Kind("native", 1, int(share * model_bytes), slow * slowdown, 1) for slow, share in UNEQUAL]
    return described(kinds, GIGABIT)


def fused_once() -> driver.Fused:
    """The decoder, with room for as many sequences as there will be."""
    return fuse(llama(SHAPE, int4=True), SHAPE.context, SEQUENCES, buckets={"sequence_length": [1, PROMPT]})


def planned(fused: driver.Fused, cluster: Cluster, tokens: int) -> Bundle:
    """As tvmpipe places it."""
    return driver.compile(
        driver.plan(fused, cluster, BuildOptions(time_limit_s=60, prompt=PROMPT, generate=tokens))
    ).bundle


def measure(bundle: Bundle, cluster: Cluster, sequences: int, tokens: int) -> Rate:
    """Generate with so many sequences at once. What counts is between when all are warm and when the first ends."""
    times: dict[int, list[float]] = defaultdict(list)
    lock = threading.Lock()

    def tell(text: int, _place: int) -> None:
        with lock:
            times[text].append(time.perf_counter())

    used = [device for device in cluster.devices if device.name in bundle.manifest.plan.devices]
    with (
        tempfile.TemporaryDirectory() as folder,
        local_cluster([agent_of(device, GIGABIT) for device in used], store=Path(folder)) as local,
        tvmpipe.connect(bundle, local.tracker, batch=1, inflight=2 * sequences, timeout_s=120) as pipe,
    ):
        pipe.warm_up()
        given = prompts([PROMPT] * sequences, SHAPE.vocabulary)
        texts = generate(PipelineModel(pipe, "decoder"), given, tokens, tell)
        counts = pipe.counts()
    begin, end = max(each[WARM] for each in times.values()), min(each[-1] for each in times.values())
    inside = sum(begin < one <= end for each in times.values() for one in each)
    steps = [b - a for each in times.values() for a, b in zip(each[WARM:], each[WARM + 1 :], strict=False)]
    smallest = min(range(len(bundle.manifest.buckets)), key=lambda n: bundle.manifest.buckets[n].inputs[0].shape[-1])
    stages = [stage.name for stage in bundle.manifest.plan.stages_of(smallest)]
    compute_s = sum(counts[name].compute_s / counts[name].samples for name in stages)
    return Rate(inside / (end - begin), statistics.median(steps), compute_s, tuple(texts))


def check(rate: Rate) -> None:
    """The first text is what ONNX Runtime generates."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(llama(SHAPE, int4=True), path)
        (prompt,) = prompts([PROMPT], SHAPE.vocabulary)
        wanted = Greedy(path, SHAPE.groups, SHAPE.depth).generate(prompt, len(rate.texts[0].tokens))
    if wanted.tokens != rate.texts[0].tokens:
        raise SystemExit(f"{rate.texts[0].tokens} instead of {wanted.tokens}")


def layers_of(bundle: Bundle) -> str:
    """How many layers have their cache on each device."""
    kept = bundle.manifest.plan.stages_of(0)
    found = Counter({stage.device: len(stage.in_place) // 2 for stage in kept})
    for stage in kept:
        found[stage.device] = sum(len(one.in_place) // 2 for one in kept if one.device == stage.device)
    return " ".join(str(count) for count in found.values())


def equal_table(fused: driver.Fused, counts: Sequence[int], slowdown: float, tokens: int) -> Table:
    """Equal devices with twice as many sequences."""
    table = Table("devices", "sequences", "layers on each", "tokens/s", "times one device", "planned", "wanted")
    table.add_column("distributed-llama, 1 sequence")
    rates: dict[int, Rate] = {}
    periods: dict[int, float] = {}
    for count in counts:
        cluster = equal(count, slowdown)
        bundle = planned(fused, cluster, tokens)
        rate = rates[count] = measure(bundle, cluster, 2 * count, tokens)
        check(rate)
        periods[count] = bundle.manifest.plan.predicted.period_s
        stderr.print(f"{count} devices: {rate.tokens_per_s:.2f} tokens/s", highlight=False)
        table.add_row(
            str(count),
            str(2 * count),
            layers_of(bundle),
            f"{rate.tokens_per_s:.2f}",
            f"{rate.tokens_per_s / rates[counts[0]].tokens_per_s:.2f}",
            f"{periods[counts[0]] / periods[count]:.2f}",
            str(WANTED.get(count, "")),
            DISTRIBUTED_LLAMA.get(count, ""),
        )
    return table


def alone_table(fused: driver.Fused, slowdown: float, tokens: int) -> Table:
    """One sequence on one device and on four."""
    table = Table("devices", "a token, ms", "in stages, ms", "links and head, ms", "lost")
    first: Rate | None = None
    for count in (1, 4):
        cluster = equal(count, slowdown)
        # As with several sequences: for one alone nothing is gained by using more than one device.
        rate = measure(planned(fused, cluster, tokens), cluster, 1, tokens)
        check(rate)
        first = first or rate
        between = rate.token_s - rate.compute_s
        shown = [f"{1e3 * one:.1f}" for one in (rate.token_s, rate.compute_s, between)]
        table.add_row(str(count), *shown, f"{rate.token_s / first.token_s - 1:.1%}")
    return table


def unequal_table(fused: driver.Fused, slowdown: float, tokens: int) -> Table:
    """Unequal devices of which none holds the model."""
    sequences = 2 * len(UNEQUAL)
    held = sum(fused.graph.weight_sizes.values()) + SEQUENCES * SHAPE.cache_bytes
    cluster = unequal(slowdown, held)
    names = [device.name for device in cluster.devices]
    ways: dict[str, Bundle] = {
        "tvmpipe": planned(fused, cluster, tokens),
        "as many layers for each": compile_as(fused, cluster, cut_layers(fused.graph, dict.fromkeys(names, 1.0))),
        "layers by memory": compile_as(
            fused,
            cluster,
            cut_layers(fused.graph, {name: share for name, (_, share) in zip(names, UNEQUAL, strict=True)}),
        ),
    }
    table = Table("plan", "layers on each", "tokens/s", "tvmpipe is faster by")
    best: Rate | None = None
    for way, bundle in ways.items():
        rate = measure(bundle, cluster, sequences, tokens)
        check(rate)
        best = best or rate
        row = (layers_of(bundle), f"{rate.tokens_per_s:.2f}", f"{best.tokens_per_s / rate.tokens_per_s:.2f}x")
        table.add_row(way, *row)
    return table


@click.command()
@click.option("--devices", default="1,2,4,8")
@click.option("--slowdown", default=80.0)
@click.option("--tokens", default=45, help="Of each sequence.")
@click.option("--only", type=click.Choice(["equal", "alone", "unequal"]), help="One table.")
@click.option("--record", is_flag=True, help="Write the tables into benchmarks/results/.")
def main(devices: str, slowdown: float, tokens: int, only: str | None, record: bool) -> None:
    """Print the tables, all emulated."""
    header = (
        f"A decoder of {SHAPE.layers} layers with {SHAPE.parameters / 1e6:.0f} million weights of 4 bits; emulated "
        f"devices of one thread, {slowdown:g} times slower than this machine,\nlinks of 117 MB/s and 0.5 ms, emulated "
        f"too. Prompts of {PROMPT} tokens; {tokens} tokens each, greedy; the first text equals ONNX Runtime's.\n"
    )
    parts: list[Any] = [header]
    fused = fused_once()
    if only in (None, "equal"):
        counts = [int(count) for count in devices.split(",")]
        table = equal_table(fused, counts, slowdown, tokens)
        parts += [
            "Twice as many sequences as devices. distributed-llama: Llama 2 7B on Raspberry Pi 5, README of 0.3.1.",
            table,
        ]
    if only in (None, "alone"):
        parts += ["One sequence alone.", alone_table(fused, slowdown, tokens)]
    if only in (None, "unequal"):
        shown = ", ".join(f"{slow} times ({share:.0%})" for slow, share in UNEQUAL)
        parts += [
            f"Three devices, slower than the fastest by (memory, of what the model and its caches need): {shown}.",
            unequal_table(fused, slowdown, tokens),
        ]
    text = text_of(*parts, width=150)
    if record:
        save("sequences_scale.txt", text)
    click.echo(text, nl=False)


if __name__ == "__main__":
    reserve_stdout()
    main()
