"""Agents are killed, stopped and cut off while texts are generated; every token is checked.

    python -m benchmarks.sequences.chaos [--texts 40] [--count 200] [--every 10] [--seed 0] [--times 1] [--record]

A decoder of four layers is on four agents of this machine. Every `--every` seconds one of them is killed with SIGKILL,
stopped with SIGSTOP, or has its stage link cut, and comes back 3 s later. Each text must have the tokens that ONNX
Runtime generates, each once.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import onnx
from rich.table import Table

import tvmpipe
from benchmarks.chaos import HARMED_S, KEYS, Gremlin, cabled_cluster
from benchmarks.results_file import save, text_of
from benchmarks.sequences.greedy import Greedy, prompts
from benchmarks.sequences.models import SHAPES, llama
from benchmarks.sequences.running import caches, cluster_of, compile_as, cut_layers, fuse, generate
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.generation.pipeline_model import PipelineModel

SHAPE = SHAPES["tiny"]
LENGTHS = (1, 5, 20, 40)
# Slow on paper, so that the best plans without one use all others.
SLOW = "slowdown = 5000"


def run_once(
    texts: int,
    count: int,
    every: float,
    at_once: int,
    pace_s: float,
    seed: int,
    log: Path | None = None,
    agents_log: Path | None = None,
) -> dict[str, Any]:
    """One run on agents of its own: what was done to them, and how many tokens are right."""
    model = llama(SHAPE)
    given = prompts([LENGTHS[number % len(LENGTHS)] for number in range(texts)], SHAPE.vocabulary, seed)
    fused = fuse(model, SHAPE.context, at_once)
    placement = cut_layers(fused.graph, dict.fromkeys(KEYS, 1.0))
    bundle = compile_as(fused, cluster_of(KEYS, SLOW), placement, failover=True, time_limit_s=10)
    assert set(caches(bundle)) == set(KEYS)
    ended = threading.Event()
    answers: Counter[tuple[int, int]] = Counter()
    before: dict[int, float] = {}
    longest = 0.0
    lock = threading.Lock()

    def tell(text: int, place: int) -> None:
        nonlocal longest
        with lock:
            now = time.monotonic()
            answers[text, place] += 1
            longest = max(longest, now - before.get(text, now))
            before[text] = now

    with tempfile.TemporaryDirectory() as folder, cabled_cluster(KEYS, Path(folder), agents_log) as (cluster, cables):
        onnx.save(model, Path(folder) / "model.onnx")
        greedy = Greedy(Path(folder) / "model.onnx", SHAPE.groups, SHAPE.depth)
        wanted = [greedy.generate(prompt, count) for prompt in given]
        gremlin = Gremlin(cluster, cables, seed)

        def harm() -> None:
            while not ended.wait(every):
                gremlin.strike()

        with tvmpipe.connect(bundle, cluster.tracker, failover=True, event_log=log) as pipe:
            pipe.warm_up()
            striker = threading.Thread(target=harm, daemon=True)
            striker.start()
            began = time.monotonic()
            try:
                made = generate(PipelineModel(pipe, "decoder"), given, count, tell, pace_s)
            finally:
                seconds = time.monotonic() - began
                ended.set()
                striker.join()
                gremlin.idle.wait()
    pairs = [(one.tokens[n], other.tokens[n]) for one, other in zip(made, wanted, strict=True) for n in range(count)]
    return {
        "seed": seed,
        "texts": texts,
        "tokens": texts * count,
        "equal": sum(one == other for one, other in pairs),
        "twice": sum(times - 1 for times in answers.values()),
        "different ones in a text": min(len(set(one.tokens)) for one in wanted),
        **{kind: gremlin.done[kind] for kind in ("kill", "stop", "cut")},
        "longest wait, s": longest,
        "seconds": seconds,
    }


@click.command()
@click.option("--texts", default=40)
@click.option("--count", default=200, help="Tokens of each text.")
@click.option("--every", default=10.0, help="Seconds from harm to harm.")
@click.option("--at-once", default=8, help="Texts that are written at once.")
@click.option("--pace", default=0.1, help="Seconds that a reader takes for a token, so that a text is long enough.")
@click.option("--seed", default=0, help="Of the first run.")
@click.option("--times", default=1, help="Runs, each with agents of its own and the next seed.")
@click.option("--log", type=click.Path(path_type=Path), help="Where to write the executor's events.")
@click.option("--agents-log", type=click.Path(path_type=Path), help="Where agents write to.")
@click.option("--record", is_flag=True, help="Write the table into benchmarks/results/.")
def main(
    texts: int,
    count: int,
    every: float,
    at_once: int,
    pace: float,
    seed: int,
    times: int,
    log: Path | None,
    agents_log: Path | None,
    record: bool,
) -> None:
    """Run it and print what was done and how many tokens are right."""
    runs = []
    for number in range(times):
        runs.append(run_once(texts, count, every, at_once, pace, seed + number, log, agents_log))
        stderr.print(str(runs[-1]), highlight=False)
    table = Table(*runs[0])
    for facts in runs:
        table.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in facts.values()))
    header = (
        f"A decoder of {SHAPE.layers} layers over four agents on one machine, with failover; {at_once} texts at once, "
        f"a token each {pace:g} s at most.\nEvery {every:g} s an agent is killed, stopped or cut off, for "
        f"{HARMED_S:g} s. Tokens equal to ONNX Runtime's; answers that came twice."
    )
    text = text_of(header, table, width=130)
    if record:
        save("sequences_chaos.txt", text)
    click.echo(text, nl=False)
    if any(facts["equal"] != facts["tokens"] or facts["twice"] for facts in runs):
        raise SystemExit(1)


if __name__ == "__main__":
    reserve_stdout()
    main()
