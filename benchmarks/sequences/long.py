"""A long text on four devices: how the time of a token grows, and what memory the devices take.

    python -m benchmarks.sequences.long [--count 2000] [--memory-only] [--record]

A decoder is compiled for four devices and put on four agents of this machine, each of which offers the memory that the
plan says and 1 % more. One text is written. The time of a token grows with the text, for attention reads a longer
cache: that is compared with a model of the same caches and attention and nothing else, in this process. Memory is that
of each stage host, without what it takes with a decoder of hardly any weights in the same stages.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import psutil
from rich.table import Table

import tvmpipe
from benchmarks.results_file import save, text_of
from benchmarks.sequences.models import SHAPES, Shape, attention_alone, llama
from benchmarks.sequences.running import cluster_of, compile_as, cut_layers, fuse
from tests.runtime.device.test_memory import proc_bytes
from tests.runtime.processes import stage_host
from tvmpipe.bundle import Bundle
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.generation.language_model import TokenSequence
from tvmpipe.generation.pipeline_model import PipelineModel
from tvmpipe.manifest import memory_bytes_of
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster

KEYS = ("alpha", "beta", "gamma", "delta")
SHAPE = SHAPES["long"]
HOLLOW = replace(SHAPE, hidden=32, inner=32, heads=1, groups=1, depth=16, vocabulary=32)
SEQUENCES = 4
PROMPT = 337  # a step of each size
_OFFERED = 1.01
_BLOCK = 100  # tokens, of which the quick ones count
_STEPS = 40
MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """Bytes of a stage host: at its peak, after the prompt and at the end."""

    peak: int
    first: int
    last: int


def planned_bytes(bundle: Bundle) -> dict[str, int]:
    """What the plan says of each device: weights, states of all sequences, and activations of the largest step."""
    kept = bundle.manifest.sequences
    assert kept is not None
    found = {}
    for device in bundle.manifest.plan.devices:
        stages = [stage for stage in bundle.manifest.plan.stages if stage.device == device]
        read = {tensor.value for stage in stages for tensor in stage.inputs}
        states = [state for state in kept.states if any(before in read for before, _ in state.values)]
        found[device] = memory_bytes_of(stages) + kept.count * sum(state.spec.size_bytes for state in states)
    return found


def split(shape: Shape) -> Bundle:
    """A decoder with a quarter of its layers on each device."""
    fused = fuse(llama(shape), shape.context, SEQUENCES)
    return compile_as(fused, cluster_of(KEYS), cut_layers(fused.graph, dict.fromkeys(KEYS, 1.0)))


@contextmanager
def opened(bundle: Bundle, memory_bytes: Mapping[str, int | None]) -> Iterator[tuple[PipelineModel, LocalCluster]]:
    """A bundle on agents that offer so much memory."""
    with (
        tempfile.TemporaryDirectory() as folder,
        local_cluster([LocalAgent(key, 1, memory_bytes[key]) for key in KEYS], store=Path(folder)) as cluster,
        tvmpipe.connect(bundle, cluster.tracker, batch=1) as pipe,
    ):
        yield PipelineModel(pipe, "decoder"), cluster


def write(sequence: TokenSequence, vocabulary: int, prompt: int, count: int) -> Iterator[float]:
    """Seconds that the prompt took, and then each of so many tokens."""
    new = np.random.default_rng(0).integers(0, vocabulary, prompt).tolist()
    for _ in range(count + 1):
        began = time.perf_counter()
        logits = sequence.feed(new).result()[-1]
        yield time.perf_counter() - began
        new = [int(logits.argmax())]


def measure(
    bundle: Bundle, memory_bytes: Mapping[str, int | None], count: int
) -> tuple[list[float], dict[str, Memory]]:
    """Seconds of each token, and what each device took."""
    with opened(bundle, memory_bytes) as (model, cluster):
        hosts = {key: stage_host(psutil.Process(cluster.process(key).pid)) for key in KEYS}
        sequence = model.sequence()
        times = []
        first: dict[str, int] = {}
        for number, seconds in enumerate(write(sequence, model.vocabulary, PROMPT, count)):
            times.append(seconds)
            if number == 1:
                first = {key: host.memory_info().rss for key, host in hosts.items()}
        sequence.close()
        return times[1:], {
            key: Memory(proc_bytes(host.pid, "status", "VmHWM"), first[key], host.memory_info().rss)
            for key, host in hosts.items()
        }


def quick(times: Sequence[float]) -> float:
    """What a tenth of them stays below: what else a machine does makes some slower and none faster."""
    return float(np.quantile(times, 0.1))


def attention_s(lengths: list[int]) -> list[float]:
    """Seconds of a step of attention alone where a sequence has these lengths."""
    cluster = cluster_of(KEYS[:1])
    bundle = tvmpipe.build(attention_alone(SHAPE), cluster, context=SHAPE.context, sequences=1)
    with run_in_process(bundle) as pipe:
        model = PipelineModel(pipe, "attention")
        sequence = model.sequence()
        found = []
        for length in lengths:
            start = length - _STEPS // 2
            sequence.feed([n % model.vocabulary for n in range(start - sequence.length)]).result()
            found.append(quick(list(write(sequence, model.vocabulary, 1, _STEPS))[1:]))
        sequence.close()
    return found


def memory_table(found: Mapping[str, Memory], hollow: Mapping[str, Memory], plans: list[dict[str, int]]) -> Table:
    """Of each device what it took over the decoder without weights, and what the plans say of that."""
    table = Table(
        "device", "planned, MiB", "peak, MiB", "of planned", "after the first token, MiB", "grown by the last"
    )
    for key, one in found.items():
        planned = plans[0][key] - plans[1][key]
        peak = one.peak - hollow[key].peak
        row = [planned / MIB, peak / MIB, peak / planned, (one.first - hollow[key].first) / MIB, one.last - one.first]
        shown = (f"{row[0]:.1f}", f"{row[1]:.1f}", f"{row[2]:.3f}", f"{row[3]:.1f}", f"{row[4] / 1024:.0f} KiB")
        table.add_row(key, *shown)
    return table


def time_table(times: list[float], count: int) -> Table:
    """The time of a token against attention alone."""
    ends = [end for end in range(_BLOCK, count + 1, _BLOCK) if end == _BLOCK or not end % 500]
    lengths = [PROMPT + end - _BLOCK // 2 for end in ends]
    alone = attention_s(lengths)
    quickest = [quick(times[end - _BLOCK : end]) for end in ends]
    table = Table("tokens before", "a token, ms", "grown, ms", "attention alone, ms", "grown, ms", "ratio of growths")
    for length, took, there in zip(lengths, quickest, alone, strict=True):
        grown, expected = took - quickest[0], there - alone[0]
        ratio = f"{grown / expected:.2f}" if expected > 0 else ""
        cells = [took, grown, there, expected]
        table.add_row(str(length), *(f"{1e3 * cell:.2f}" for cell in cells), ratio)
    return table


@click.command()
@click.option("--count", default=2000, help="Tokens.")
@click.option("--memory-only", is_flag=True, help="On a machine that others use.")
@click.option("--record", is_flag=True, help="Write the tables into benchmarks/results/.")
def main(count: int, memory_only: bool, record: bool) -> None:
    """Print both tables."""
    assert PROMPT + count <= SHAPE.context
    bundle, hollow = split(SHAPE), split(HOLLOW)
    plans = [planned_bytes(bundle), planned_bytes(hollow)]
    limits: dict[str, int | None] = {key: int(_OFFERED * size) for key, size in plans[0].items()}
    times, took = measure(bundle, limits, count)
    stderr.print("the same without weights")
    _, without = measure(hollow, dict.fromkeys(KEYS), 3)
    header = (
        f"A decoder of {SHAPE.layers} layers with {SHAPE.parameters / 1e6:.0f} million float32 weights on four agents "
        f"of one thread on one machine,\n{SEQUENCES} sequences of {SHAPE.context} tokens; one of them is given "
        f"{PROMPT} tokens and generates {count}, one after the other."
    )
    texts = {"sequences_memory.txt": text_of(header, memory_table(took, without, plans), width=130)}
    if not memory_only:
        texts["sequences_long.txt"] = text_of(header, time_table(times, count), width=130)
    for name, text in texts.items():
        if record:
            save(name, text)
        click.echo(text, nl=False)


if __name__ == "__main__":
    reserve_stdout()
    main()
