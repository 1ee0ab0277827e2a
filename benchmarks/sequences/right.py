"""Whether decoders as exporters write them generate over three devices what ONNX Runtime generates alone.

    python -m benchmarks.sequences.right FOLDER [PATTERN ...] [--torch PYTHON] [--record]

`--torch` is a Python with torch, transformers and onnxruntime-genai; it exports into FOLDER what is not there yet (see
export.py). Each file is compiled for three devices, a third of its layers on each, and put on three agents of this
machine. Eight sequences generate at once after prompts of 1 to 300 tokens, greedily. Exits with 1 where a token
differs.
"""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from benchmarks.results_file import save, text_of
from benchmarks.sequences.greedy import Greedy, GreedySteps, Text, prompts
from benchmarks.sequences.running import (
    caches,
    cluster_of,
    compile_as,
    compile_pinned,
    cut_layers,
    cut_states,
    fuse,
    generate,
)
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.errors import TvmpipeError, reason_of
from tvmpipe.generation.open_model import open_language_model
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.runtime.head.options import ConnectOptions

KEYS = ("alpha", "beta", "gamma")
LENGTHS = (1, 2, 7, 16, 33, 100, 257, 300)
CONTEXT = 512
HEADER = """\
A third of the layers and their caches on each of three agents on one machine, {sequences} sequences at once,
greedy, prompts of {lengths} tokens; tokens equal to those of ONNX Runtime {version} on the whole file.
Difference: the largest of any logit, over the largest logit. Margin: the least by which a chosen token was ahead of
the second, over the same. ONNX Runtime multiplies int4 weights with float activations here (MatMulNBits with
accuracy_level 1). The files say 4, with which it rounds activations to 8 bits first; tvmpipe never does."""


@dataclass(frozen=True)
class Found:
    """Of a file: buckets; tokens that are equal, and in all; the fewest different ones in a text; the largest
    difference and the least margin of logits, over the largest.
    """

    buckets: str
    equal: int
    tokens: int
    fewest: int
    difference: float
    margin: float


def check(path: Path, count: int) -> Found:
    """Compile, run on agents, compare."""
    grows = "mamba" not in path.stem
    if grows:
        fused = fuse(path, CONTEXT, len(LENGTHS))
        bundle = compile_as(fused, cluster_of(KEYS), cut_layers(fused.graph, dict.fromkeys(KEYS, 1.0)))
        assert caches(bundle) == list(KEYS)
    else:
        fused = fuse(path, None, len(LENGTHS))
        bundle = compile_pinned(fused, cluster_of(KEYS), cut_states(fused.graph, KEYS))
    buckets = sorted(next(iter(bucket.extents.values()), 1) for bucket in bundle.manifest.buckets)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.tvmpipe"
        bundle.save(place)
        with (
            local_cluster([LocalAgent(key) for key in KEYS], store=Path(folder)) as cluster,
            open_language_model(place, cluster.tracker, ConnectOptions()) as model,
        ):
            given = prompts(LENGTHS, model.vocabulary)
            texts = generate(model, given, count)
    assert bundle.manifest.sequences is not None
    greedy: Greedy | GreedySteps
    if grows:
        _, groups, _, depth = bundle.manifest.sequences.states[0].spec.shape
        greedy = Greedy(path, groups, depth)
    else:
        greedy = GreedySteps(path)
    return compare(texts, [greedy.generate(prompt, count) for prompt in given], " ".join(map(str, buckets)))


def compare(texts: Sequence[Text], wanted: Sequence[Text], buckets: str) -> Found:
    """How far texts are what they should be. Logits count as long as the tokens before them are the same."""
    equal, difference, margin, largest = 0, 0.0, np.inf, 0.0
    for one, other in zip(texts, wanted, strict=True):
        same = np.equal(one.tokens, other.tokens)
        equal += int(same.sum())
        comparable = len(same) if same.all() else int(same.argmin()) + 1
        difference = max(difference, float(np.abs(one.logits - other.logits)[:comparable].max()))
        second, first = np.partition(other.logits, -2, axis=1)[:, -2:].T
        margin = min(margin, float((first - second).min()))
        largest = max(largest, float(np.abs(other.logits).max()))
    tokens = sum(len(one.tokens) for one in wanted)
    fewest = min(len(set(one.tokens)) for one in wanted)
    return Found(buckets, equal, tokens, fewest, difference / largest, margin / largest)


def report(rows: Sequence[tuple[str, Found | str]], count: int) -> str:
    """What is recorded."""
    import onnxruntime

    table = Table("file", "steps of", "tokens", "equal", "different ones in a text", "difference", "margin")
    for name, found in rows:
        if isinstance(found, str):
            table.add_row(name, "", "", found)
            continue
        numbers = (str(found.tokens), str(found.equal), f"{found.fewest} or more")
        table.add_row(name, found.buckets, *numbers, f"{found.difference:.1e}", f"{found.margin:.1e}")
    lengths = ", ".join(map(str, LENGTHS))
    header = HEADER.format(sequences=len(LENGTHS), lengths=lengths, version=onnxruntime.__version__)
    right = sum(isinstance(found, Found) and found.equal == found.tokens for _, found in rows)
    return text_of(header, table, f"{right} of {len(rows)} files: all of {count} tokens of each text equal", width=130)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("patterns", nargs=-1)
@click.option("--torch", help="A Python that exports.")
@click.option("--count", default=200, help="Tokens of each text.")
@click.option("--record", is_flag=True, help="Write the table into benchmarks/results/.")
def main(folder: Path, patterns: tuple[str, ...], torch: str | None, count: int, record: bool) -> None:
    """Check the files in FOLDER whose names fit a pattern."""
    patterns = patterns or ("*",)
    if torch is not None:
        subprocess.run([torch, "-m", "benchmarks.sequences.export", str(folder), *patterns], check=True)
    rows: list[tuple[str, Found | str]] = []
    for path in sorted(folder.glob("*.onnx")):
        if not any(fnmatch.fnmatch(path.stem, pattern) for pattern in patterns):
            continue
        try:
            rows.append((path.stem, check(path, count)))
        except TvmpipeError as error:
            rows.append((path.stem, f"refused: {reason_of(error)}"))
        stderr.print(f"{path.stem}: {rows[-1][1]}", highlight=False)
    text = report(rows, count)
    if record:
        save("sequences_right.txt", text)
    click.echo(text, nl=False)
    sys.exit(not all(isinstance(found, Found) and found.equal == found.tokens for _, found in rows))


if __name__ == "__main__":
    reserve_stdout()
    main()
