"""Tokens per second of one text on one device: tvmpipe beside ONNX Runtime and llama.cpp, the same weights.

    python -m benchmarks.sequences.speed [--shape medium] [--threads 1,2] [--rounds 12] [--record]

A decoder with seeded weights is written as an ONNX file, in float32 and with weights of 4 bits, and for llama.cpp as
F32, Q8_0 and Q4_0 (packages llama-cpp-python and gguf; without them it is left out). All run in one process and take
turns, a block of tokens each; a ratio is of blocks that follow each other, and the median of those counts. Every one
generates greedily after the same prompt; whether tokens are the same is said where weights are.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from rich.table import Table

from benchmarks.results_file import save, text_of
from benchmarks.sequences.gguf_file import KINDS, write_gguf
from benchmarks.sequences.models import SHAPES, Shape, llama
from benchmarks.sequences.running import cluster_of, fuse
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.stdout import reserve_stdout

PROMPT = 256
BLOCK = 16
"""Tokens that one of them generates before it is the next one's turn."""


@dataclass
class Runner:
    """One way to run the decoder: `feed` takes tokens and answers the logits of the last one."""

    name: str
    size_bytes: int
    feed: Callable[[list[int]], np.ndarray[Any, Any]]
    tokens: list[int]
    seconds: list[float]
    prompt_s: float = 0.0

    def begin(self, prompt: list[int]) -> None:
        """Take the prompt."""
        started = time.perf_counter()
        self.tokens = [int(self.feed(prompt).argmax())]
        self.prompt_s = time.perf_counter() - started

    def block(self) -> None:
        """Generate some tokens."""
        started = time.perf_counter()
        for _ in range(BLOCK):
            self.tokens.append(int(self.feed(self.tokens[-1:]).argmax()))
        self.seconds.append((time.perf_counter() - started) / BLOCK)


def tvmpipe_runner(name: str, model: onnx.ModelProto, shape: Shape, threads: int) -> Runner:
    """In this process, as an agent would run it."""
    import tvm_ffi

    from tvmpipe.generation.pipeline_model import PipelineModel
    from tvmpipe.passes import driver
    from tvmpipe.passes.options import BuildOptions
    from tvmpipe.runtime.emulation.inprocess import run_in_process

    cluster = cluster_of(["here"], "")
    if threads > 1:
        from dataclasses import replace

        cluster = replace(cluster, devices=tuple(replace(one, threads=threads) for one in cluster.devices))
    fused = fuse(model, shape.context, 1, buckets={"sequence_length": [1, 256]})
    bundle = driver.compile(driver.plan(fused, cluster, BuildOptions(time_limit_s=1.0))).bundle
    tvm_ffi.get_global_func("runtime.config_threadpool")(1, threads)
    sequence = PipelineModel(run_in_process(bundle), name).sequence()
    weights = max(stage.weight_bytes for stage in bundle.manifest.plan.stages if stage.bucket == 1)
    runner = Runner(name, weights, lambda ids: sequence.feed(ids).result()[-1], [], [])
    runner.bundle = bundle  # type: ignore[attr-defined]  # it is deleted with the object
    return runner


def onnxruntime_runner(name: str, path: Path, shape: Shape, threads: int) -> Runner:
    """Its own loop: caches are outputs that become inputs, bound without a copy to Python."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = [one.name for one in session.get_inputs() if one.name.startswith("past")]
    outputs = [one.name for one in session.get_outputs()][1:]
    empty = np.zeros((1, shape.groups, 0, shape.depth), np.float32)
    past = {name: onnxruntime.OrtValue.ortvalue_from_numpy(empty) for name in inputs}
    length = 0

    def feed(ids: list[int]) -> np.ndarray[Any, Any]:
        nonlocal past, length
        length += len(ids)
        binding = session.io_binding()
        binding.bind_cpu_input("input_ids", np.array([ids], np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((1, length), np.int64))
        for name, value in past.items():
            binding.bind_ortvalue_input(name, value)
        for name in ("logits", *outputs):
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        logits, *present = binding.get_outputs()
        past = dict(zip(inputs, present, strict=True))
        return np.asarray(logits.numpy()[0, -1])

    return Runner(name, path.stat().st_size, feed, [], [])


def llama_runner(name: str, path: Path, shape: Shape, threads: int) -> Runner:
    """Through llama-cpp-python, which adds some microseconds to a token."""
    import llama_cpp  # type: ignore[import-not-found]

    model = llama_cpp.Llama(
        str(path), n_ctx=shape.context, n_threads=threads, n_threads_batch=threads, n_batch=512, verbose=False
    )

    def feed(ids: list[int]) -> np.ndarray[Any, Any]:
        model.eval(ids)
        logits = llama_cpp.llama_get_logits_ith(model._ctx.ctx, -1)
        return np.ctypeslib.as_array(logits, (shape.vocabulary,))

    return Runner(name, path.stat().st_size, feed, [], [])


def make_runners(shape: Shape, threads: int, folder: Path) -> list[Runner]:
    """All of them, ready."""
    kinds: Mapping[str, bool] = {"float32": False, "int4": True}
    runners = []
    for kind, int4 in kinds.items():
        model = llama(shape, int4=int4)
        path = folder / f"{kind}.onnx"
        onnx.save(model, path)
        stderr.print(f"compiling {kind} for {threads} threads")
        runners.append(tvmpipe_runner(f"tvmpipe {kind}", model, shape, threads))
        runners.append(onnxruntime_runner(f"ONNX Runtime {kind}", path, shape, threads))
        if int4:
            at4 = folder / "int4_level4.onnx"
            for node in model.graph.node:
                for attribute in node.attribute:
                    if attribute.name == "accuracy_level":
                        attribute.i = 4
            onnx.save(model, at4)
            runners.append(onnxruntime_runner("ONNX Runtime int4, activations in 8 bits", at4, shape, threads))
    if all(importlib.util.find_spec(one) for one in ("llama_cpp", "gguf")):
        model = llama(shape)
        for kind in KINDS:
            path = folder / f"{kind}.gguf"
            write_gguf(model, shape, path, kind)
            runners.append(llama_runner(f"llama.cpp {kind}", path, shape, threads))
    return runners


def measured(runners: list[Runner], vocabulary: int, rounds: int) -> None:
    """Prompts, and then blocks of tokens in turns."""
    prompt = np.random.default_rng(0).integers(0, vocabulary, PROMPT).tolist()
    for runner in runners:
        runner.begin(prompt)
    for number in range(rounds):
        stderr.print(f"round {number + 1} of {rounds}")
        for runner in runners if number % 2 == 0 else runners[::-1]:
            runner.block()


def table_of(runners: list[Runner], threads: int, bandwidth_bps: float) -> Table:
    """Tokens per second, ratios to tvmpipe's own of the same kind of weights, and the share of memory bandwidth."""
    table = Table(title=f"{threads} thread" + "s" * (threads > 1), title_justify="left")
    for column in ("", "weights", "tokens/s", "of bandwidth", "prompt tokens/s", "time over tvmpipe's", "middle half"):
        table.add_column(column, justify="left" if not column else "right")
    ours = {"float32": runners[0], "int4": runners[2]}
    for runner in runners:
        second = statistics.median(runner.seconds)
        whole = runner.name.endswith(("float32", "F32"))
        mine = ours["float32" if whole else "int4"]
        ratios = sorted(a / b for a, b in zip(runner.seconds, mine.seconds, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        table.add_row(
            runner.name + (" (same tokens)" if runner is not mine and runner.tokens == mine.tokens else ""),
            f"{runner.size_bytes / 2**20:.0f} MiB",
            f"{1 / second:.1f}",
            f"{runner.size_bytes / second / bandwidth_bps:.0%}",
            f"{PROMPT / runner.prompt_s:.0f}",
            "" if runner is mine else f"{statistics.median(ratios):.2f}",
            "" if runner is mine else f"{low:.2f} to {high:.2f}",
        )
    return table


def bandwidth_bps(threads: int) -> float:
    """Bytes per second that so many threads of this process read from memory, the median of some tries."""
    import tvm

    from tvmpipe.profiling.peak import memory_reads
    from tvmpipe.targets.description.boards import find_target

    target = find_target("native")
    ceiling = memory_reads(target, threads)
    with tvm.transform.PassContext(opt_level=3):
        library = tvm.compile(tvm.IRModule({"sums": ceiling.function}), target.tvm_target(threads))
    timer = library.jit().time_evaluator("sums", tvm.cpu(), number=1, repeat=30)
    return ceiling.amount / float(timer(*(tvm.runtime.tensor(array) for array in ceiling.arrays)).median)


@click.command()
@click.option("--shape", "name", type=click.Choice(list(SHAPES)), default="medium", help="Of the decoder.")
@click.option("--threads", default="1,2", help="Numbers of threads.")
@click.option("--rounds", type=click.IntRange(min=2), default=12, help=f"Blocks of {BLOCK} tokens for each.")
@click.option("--record", is_flag=True, help="Write benchmarks/results/sequences_speed.txt.")
@click.option("--part", hidden=True, is_flag=True)
def main(name: str, threads: str, rounds: int, record: bool, part: bool) -> None:
    """Measure, each number of threads in a process of its own."""
    reserve_stdout()
    shape = SHAPES[name]
    if part:
        count = int(threads)
        with tempfile.TemporaryDirectory() as folder:
            runners = make_runners(shape, count, Path(folder))
            measured(runners, shape.vocabulary, rounds)
        bandwidth = bandwidth_bps(count)
        click.echo(text_of(f"memory: {bandwidth / 1e9:.1f} GB/s", table_of(runners, count, bandwidth)))
        return
    texts = []
    for each in threads.split(","):
        command = [sys.executable, "-m", "benchmarks.sequences.speed", "--part", "--threads", each]
        command += ["--shape", name, "--rounds", str(rounds)]
        environment = {**os.environ, "TVM_NUM_THREADS": each, "OMP_NUM_THREADS": each}
        texts.append(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)
    head = (
        f"A decoder of Llama's shape, {shape.parameters / 1e6:.0f} million weights ({shape.layers} layers of "
        f"{shape.hidden}), batch 1, a prompt of {PROMPT} tokens and {rounds * BLOCK} after it.\n"
        "Bandwidth is that of reading memory on as many threads. Q8_0 and the int4 files are compared with tvmpipe "
        "int4.\n"
    )
    text = head + "\n".join(texts)
    click.echo(text)
    if record:
        save("sequences_speed.txt", text)


if __name__ == "__main__":
    main()
