"""The stage link on loopback beside TVM RPC's own copy of the same tensors.

    python -m benchmarks.link [--json]

Two processes of this machine; each size is measured in turns. The link: messages as stages send them, taken in and
copied into a stage's input buffer, at most eight on their way. TVM RPC: `copyfrom` to a `tvm.exec.rpc_server`. A hop
is half of a message's way there and back.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from typing import Any

import click
import numpy as np
import zmq
from rich.console import Console
from rich.table import Table

from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.runtime.transport import wire
from tvmpipe.runtime.transport.sockets import Sockets

SIZES = {4096: 2000, 600_000: 400, 16_000_000: 40}
ROUNDS = 5
_SESSION = bytes(8)
_ON_THEIR_WAY = 8


def message(array: np.ndarray[Any, Any], number: int) -> list[Any]:
    """A batch of one sample with one tensor."""
    return wire.pack(wire.Batch(_SESSION, number, ({0: array},)))


def wait(socket: zmq.Socket[bytes]) -> wire.Values:
    """The tensors of the next message."""
    socket.poll()
    return wire.unpack(wire.receive(socket), 1 << 30).samples[0]


def other_side(port: int, ports: Any) -> None:
    """Take in tensors; give each one back, or nothing but a word for it, as its batch number says."""
    with Sockets() as sockets:
        inbox, mine = sockets.pull("127.0.0.1")
        ports.put(mine)
        outbox, _ = sockets.push(("127.0.0.1", port), queue=0)
        buffers: dict[int, np.ndarray[Any, Any]] = {}
        word = np.zeros(1, np.float32)
        while True:
            inbox.poll()
            batch = wire.unpack(wire.receive(inbox), 1 << 30)
            (array,) = batch.samples[0].values()
            if not array.size:
                return
            buffer = buffers.setdefault(array.size, np.empty_like(array))
            np.copyto(buffer, array)
            wire.send(outbox, message(buffer if batch.number else word, 0))


class Link:
    """This side of the stage link."""

    def __init__(self, sockets: Sockets) -> None:
        ports: Any = multiprocessing.get_context("spawn").Queue()
        self.inbox, mine = sockets.pull("127.0.0.1")
        self.process = multiprocessing.get_context("spawn").Process(target=other_side, args=(mine, ports))
        self.process.start()
        self.outbox, _ = sockets.push(("127.0.0.1", ports.get()), queue=0)

    def rate(self, array: np.ndarray[Any, Any], count: int) -> float:
        """Bytes a second one way."""
        started = time.perf_counter()
        for number in range(count):
            if number >= _ON_THEIR_WAY:
                wait(self.inbox)
            wire.send(self.outbox, message(array, 0))
        for _ in range(min(count, _ON_THEIR_WAY)):
            wait(self.inbox)
        return count * array.nbytes / (time.perf_counter() - started)

    def hop(self, array: np.ndarray[Any, Any], count: int) -> float:
        """Seconds one way, half of there and back."""
        times = []
        for _ in range(count):
            started = time.perf_counter()
            wire.send(self.outbox, message(array, 1))
            wait(self.inbox)
            times.append((time.perf_counter() - started) / 2)
        return statistics.median(times)

    def close(self) -> None:
        """End the other side."""
        wire.send(self.outbox, message(np.zeros(0, np.float32), 0))
        self.process.join(10)


class Rpc:
    """TVM's own way: copies to a server's memory and back."""

    def __init__(self) -> None:
        from tvm import rpc

        self.server = rpc.Server("127.0.0.1", 9600, 9700, silent=True)
        self.remote = rpc.connect("127.0.0.1", self.server.port)

    def rate(self, array: np.ndarray[Any, Any], count: int) -> float:
        """Bytes a second one way."""
        import tvm

        there = tvm.runtime.empty(array.shape, array.dtype.name, self.remote.cpu())
        started = time.perf_counter()
        for _ in range(count):
            there.copyfrom(array)
        return count * array.nbytes / (time.perf_counter() - started)

    def hop(self, array: np.ndarray[Any, Any], count: int) -> float:
        """Seconds one way, half of there and back."""
        import tvm

        there = tvm.runtime.empty(array.shape, array.dtype.name, self.remote.cpu())
        times = []
        for _ in range(count):
            started = time.perf_counter()
            there.copyfrom(array)
            there.numpy()
            times.append((time.perf_counter() - started) / 2)
        return statistics.median(times)


@click.command()
@click.option("--json", "as_json", is_flag=True)
def main(as_json: bool) -> None:
    """Print rates and hops of both, and their ratios."""
    rows = []
    with Sockets() as sockets:
        link, rpc = Link(sockets), Rpc()
        for size, count in SIZES.items():
            array = np.random.default_rng(0).standard_normal(size // 4).astype(np.float32)
            link.rate(array, 10)  # the other side allocates
            rates, copies, hops, copy_hops = [], [], [], []
            for _ in range(ROUNDS):
                rates.append(link.rate(array, count))
                copies.append(rpc.rate(array, max(2, count // 40)))
                hops.append(link.hop(array, max(3, count // 20)))
                copy_hops.append(rpc.hop(array, max(2, count // 100)))
            rows.append(
                {
                    "size_bytes": array.nbytes,
                    "link_bps": statistics.median(rates),
                    "rpc_bps": statistics.median(copies),
                    "link_hop_s": statistics.median(hops),
                    "rpc_hop_s": statistics.median(copy_hops),
                }
            )
        link.close()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(title="Loopback: the stage link and TVM RPC")
    for column in ("tensor", "link", "TVM RPC", "ratio", "a hop: link", "TVM RPC", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['size_bytes'] / 1e6:g} MB",
            f"{row['link_bps'] / 1e6:.0f} MB/s",
            f"{row['rpc_bps'] / 1e6:.0f} MB/s",
            f"{row['link_bps'] / row['rpc_bps']:.0f}x",
            f"{row['link_hop_s'] * 1e3:.3f} ms",
            f"{row['rpc_hop_s'] * 1e3:.3f} ms",
            f"{row['rpc_hop_s'] / row['link_hop_s']:.0f}x",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    reserve_stdout()
    main()
