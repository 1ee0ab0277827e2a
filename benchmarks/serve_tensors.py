"""The tensor server beside the pipeline that it serves: throughput, added latency, every answer, and the end.

    python -m benchmarks.serve_tensors [--requests 10000] [--clients 16] [--slowdown 8] [--python PYTHON] [--record]

A model in two stages on two emulated devices, which compute and then wait, so that this machine's processor does not
decide. First the pipeline alone: `stream`, and one sample after the other. Then `tvmpipe serve` and Triton's client, in
one process with so many threads, over HTTP with binary tensors and over gRPC; every answer is compared with the
pipeline's. Then SIGTERM, while clients ask: each request has its answer or was not taken. PYTHON has tritonclient.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import tvmpipe
from benchmarks.results_file import save, text_of
from tests.models import save as save_model
from tests.models import wide_convolutions
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.samples import random_samples
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.runtime.head.connect import connect

_DISTINCT = 8
_ALONE = 200
_NAME = "convolutions"
_PATIENCE_S = 60.0

_CLIENT = """
import json, sys, threading, time
import numpy as np
kind, address, name, folder, requests, clients, ending = sys.argv[1:]
client = __import__(f"tritonclient.{kind}", fromlist=["InferInput"])
x, y = np.load(f"{folder}/x.npy"), np.load(f"{folder}/y.npy")
counts, lock, waits = {"right": 0, "wrong": 0, "failed": 0}, threading.Lock(), []

def work(each):
    server = client.InferenceServerClient(address)
    given = client.InferInput("x", list(x[0].shape), "FP32")
    for number in range(each):
        given.set_data_from_numpy(x[number % len(x)])
        began = time.perf_counter()
        try:
            found = server.infer(name, [given], request_id=str(number)).as_numpy("y")
        except Exception as error:
            with lock:
                counts["failed"] += 1
                counts.setdefault("why", str(error)[:200])
            if ending == "True":
                return
            continue
        same = np.array_equal(found, y[number % len(x)])
        with lock:
            waits.append(time.perf_counter() - began)
            counts["right" if same else "wrong"] += 1

threads = [threading.Thread(target=work, args=(int(requests) // int(clients),)) for _ in range(int(clients))]
began = time.perf_counter()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
took = time.perf_counter() - began
print(json.dumps({**counts, "seconds": took, "rate": len(waits) / took, "median_s": float(np.median(waits or [0])),
                  "p99_s": float(np.quantile(waits or [0], 0.99))}))
"""


def bundle_for(folder: Path, slowdown: float) -> tvmpipe.Bundle:
    """The model in two halves."""
    path = save_model(wide_convolutions(64, 16), folder)
    names = list(driver.front(path, ImportOptions()).graph.by_name())
    half = len(names) // 2
    plan = folder / "plan.yaml"
    lines = [f"  {name}: {'a' if place < half else 'b'}\n" for place, name in enumerate(names)]
    plan.write_text("placement:\n" + "".join(lines))
    cluster = folder / "cluster.toml"
    cluster.write_text("".join(f'[[device]]\nname = "{name}"\nthreads = 1\nslowdown = {slowdown}\n' for name in "ab"))
    return tvmpipe.build(path, cluster, plan=plan)


def pipeline_alone(bundle: tvmpipe.Bundle, tracker: str, folder: Path, samples: int) -> dict[str, float]:
    """Samples a second of a stream, and seconds for one alone; writes inputs and outputs for the client."""
    inputs = random_samples(bundle.manifest, _DISTINCT, seed=0)
    with connect(bundle, tracker) as pipe:
        outputs = [pipe.run(sample) for sample in inputs]
        np.save(folder / "x.npy", np.stack([sample["x"] for sample in inputs]))
        np.save(folder / "y.npy", np.stack([result["y"] for result in outputs]))
        list(pipe.stream(itertools.islice(itertools.cycle(inputs), 50)))
        began = time.perf_counter()
        for _ in pipe.stream(itertools.islice(itertools.cycle(inputs), samples)):
            pass
        rate = samples / (time.perf_counter() - began)
        waits = []
        for number in range(_ALONE):
            began = time.perf_counter()
            pipe.run(inputs[number % _DISTINCT])
            waits.append(time.perf_counter() - began)
    return {"rate": rate, "median_s": statistics.median(waits)}


def served(bundle: Path, tracker: str, python: str, folder: Path, requests: int, clients: int) -> list[dict[str, Any]]:
    """A row for each kind of client, alone and all at once, and one for the end."""
    http, grpc = _free_port(), _free_port()
    arguments = ["--tracker", tracker, "--name", _NAME, "--port", str(http), "--grpc-port", str(grpc)]
    server = subprocess.Popen([sys.executable, "-m", "tvmpipe", "serve", str(bundle), *arguments])
    try:
        for port in (http, grpc):
            _wait_for(port)
        rows = []
        for kind, port in (("http", http), ("grpc", grpc)):
            for count, many in ((_ALONE, 1), (requests, clients)):
                rows.append({"clients": many, "kind": kind, **_asked(python, kind, port, folder, count, many)})
                stderr.print(f"{rows[-1]}")
        asking = _start(python, "http", http, folder, requests, clients, ending=True)
        time.sleep(5.0)
        server.send_signal(signal.SIGTERM)
        rows.append({"clients": clients, "kind": "http, SIGTERM", **_finished(asking)})
        server.wait(_PATIENCE_S)
        rows[-1]["exit_code"] = server.returncode
        return rows
    finally:
        server.kill()
        server.wait()


def _asked(python: str, kind: str, port: int, folder: Path, requests: int, clients: int) -> dict[str, Any]:
    return _finished(_start(python, kind, port, folder, requests, clients, ending=False))


def _start(
    python: str, kind: str, port: int, folder: Path, requests: int, clients: int, *, ending: bool
) -> subprocess.Popen[str]:
    arguments = [kind, f"127.0.0.1:{port}", _NAME, str(folder), str(requests), str(clients), str(ending)]
    return subprocess.Popen([python, "-c", _CLIENT, *arguments], stdout=subprocess.PIPE, text=True)


def _finished(client: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = client.communicate()
    facts: dict[str, Any] = json.loads(out)
    return facts


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise click.ClickException(f"nothing listens at {port}") from None
            time.sleep(0.2)


def table_of(alone: dict[str, float], rows: Sequence[dict[str, Any]], title: str) -> Table:
    """As printed and written down."""
    table = Table(title=title)
    for name in ("clients", "how", "right", "wrong", "failed", "a second", "of stream", "median", "added", "99 %"):
        table.add_column(name, justify="left" if name == "how" else "right")
    table.add_row("", "stream", "", "", "", f"{alone['rate']:.1f}", "1.00", "", "", "")
    table.add_row("1", "run", "", "", "", "", "", f"{1e3 * alone['median_s']:.1f} ms", "", "")
    for row in rows:
        one = row["clients"] == 1
        table.add_row(
            str(row["clients"]),
            row["kind"],
            str(row["right"]),
            str(row["wrong"]),
            str(row["failed"]),
            f"{row['rate']:.1f}",
            "" if one or "SIGTERM" in row["kind"] else f"{row['rate'] / alone['rate']:.2f}",
            f"{1e3 * row['median_s']:.1f} ms",
            f"{1e3 * (row['median_s'] - alone['median_s']):.1f} ms" if one else "",
            f"{1e3 * row['p99_s']:.1f} ms",
        )
    return table


@click.command()
@click.option("--requests", default=10_000)
@click.option("--clients", default=16)
@click.option("--slowdown", default=8.0)
@click.option("--python", default=os.environ.get("TVMPIPE_TRITON_PYTHON", sys.executable))
@click.option("--record", is_flag=True, help="Write benchmarks/results/serve_tensors.txt.")
def main(requests: int, clients: int, slowdown: float, python: str, record: bool) -> None:
    """Run it and print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = bundle_for(folder, slowdown)
        path = bundle.save(folder / "bundle")
        agents = [LocalAgent(key, options=("--slowdown", str(slowdown))) for key in "ab"]
        with local_cluster(agents, store=folder / "store") as cluster:
            alone = pipeline_alone(bundle, cluster.tracker, folder, min(requests, 2000))
            stderr.print(f"{alone}")
            rows = served(path, cluster.tracker, python, folder, requests, clients)
    title = f"Tensors over HTTP and gRPC; two emulated devices, period {1e3 / alone['rate']:.1f} ms"
    if record:
        save("serve_tensors.txt", text_of(table_of(alone, rows, title)))
    Console(width=150).print(table_of(alone, rows, title))


if __name__ == "__main__":
    main()
