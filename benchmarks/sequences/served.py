"""A server under load whose model is on three agents of this machine.

    python -m benchmarks.sequences.served [--record] [--seconds 30] [--clients 16] [--requests 200] [--tokens 32]

Compiles a decoder of Llama's shape for three devices, starts agents and `tvmpipe serve`, and runs
`benchmarks.serve_load`, which says what is checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from benchmarks.results_file import save
from benchmarks.sequences.models import SHAPES, llama
from benchmarks.sequences.running import caches, cluster_of, compile_as, cut_layers, fuse
from tests.generation.fakes import END, byte_level
from tests.runtime.cable import lasting_ports
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.process import die_with_parent
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster

KEYS = ("alpha", "beta", "gamma")
SEQUENCES = 8
_STARTS_S = 120.0


@contextmanager
def server(folder: Path, queue: int) -> Iterator[str]:
    """The address of `tvmpipe serve` with a decoder on three agents; files lie in `folder`."""
    tokenizer = byte_level()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    shape = replace(SHAPES["tiny"], layers=6, vocabulary=tokenizer.get_vocab_size())
    fused = fuse(llama(shape), shape.context, SEQUENCES)
    bundle = compile_as(fused, cluster_of(KEYS), cut_layers(fused.graph, dict.fromkeys(KEYS, 1.0)))
    assert caches(bundle) == list(KEYS)
    bundle.save(folder / "decoder.tvmpipe")
    (port,) = lasting_ports(1)
    with local_cluster([LocalAgent(key) for key in KEYS], store=folder) as cluster:
        command = [sys.executable, "-m", "tvmpipe", "serve", str(folder / "decoder.tvmpipe")]
        command += ["--tokenizer", str(folder), "--tracker", cluster.tracker, "--port", str(port)]
        process = subprocess.Popen([*command, "--queue", str(queue)], preexec_fn=die_with_parent)
        try:
            _wait(process, f"http://127.0.0.1:{port}/healthz")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + _STARTS_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except urllib.error.URLError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server does not answer: {error}") from error
        time.sleep(0.1)


@click.command()
@click.option("--clients", default=16)
@click.option("--seconds", default=30.0, help="How long clients stream.")
@click.option("--requests", default=200, help="How many come at once.")
@click.option("--tokens", default=32, help="Tokens of each text.")
@click.option("--record", is_flag=True, help="Write the table into benchmarks/results/.")
def main(clients: int, seconds: float, requests: int, tokens: int, record: bool) -> None:
    """Load a server on three agents."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder), requests) as url:
        load = [sys.executable, "-m", "benchmarks.serve_load", url, "--clients", str(clients)]
        load += ["--seconds", str(seconds), "--requests", str(requests), "--tokens", str(tokens)]
        done = subprocess.run(load, stdout=subprocess.PIPE, text=True, check=False)
    header = f"tvmpipe serve, {SEQUENCES} sequences, a decoder of 6 layers over three agents on one machine\n"
    if record:
        save("serve_load.txt", header + done.stdout)
    click.echo(header + done.stdout, nl=False)
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    reserve_stdout()
    main()
