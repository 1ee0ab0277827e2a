"""The stage link over ways of long delay and lost packets: what it carries, and what `profile` takes it for.

    python -m benchmarks.link_delay [--seconds 4] [--json]

Two network namespaces 100 Mbit/s and some milliseconds from each other (see far.py; needs root). A stream: messages of
0.6 MB under a cluster key, as many on their way as there may be, for some seconds behind a first one. Profile: what
`tvmpipe profile` measures between the same ends. Both beside the rate of the way less what packets' headers take.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.far import FarLink, why_not
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport.link_times import LONGEST_MESSAGE_BYTES, LinkEnd, LinkTimes, link_end
from tvmpipe.runtime.transport.link_watch import LinkWatch
from tvmpipe.runtime.transport.sockets import Sockets
from tvmpipe.targets.store.link_times import fit_link

RATE_BPS = 12.5e6
CASES = ((0.5e-3, 0.0), (10e-3, 0.0), (20e-3, 0.0), (20e-3, 0.01), (50e-3, 0.0), (50e-3, 0.01))
"""One way, in seconds, and the share of packets that get lost."""
_MESSAGE_BYTES = 600_000
_WARM_UP_S = 1.5
_PORTS = (7001, 7002)
_PATIENCE_S = 150.0


@dataclass(frozen=True)
class Streamed:
    """Bytes a second that came behind the first seconds, and how often the link broke."""

    rate_bps: float
    breaks: int


def streamed(link: FarLink, bandwidth_bps: float | None, latency_s: float, seconds: float) -> Streamed:
    """A stream from one end to the other; `bandwidth_bps` and `latency_s` are what a plan would know of the link."""
    said = _both(link, "stream", [str(bandwidth_bps or 0.0), str(latency_s), str(seconds)])
    return Streamed(**said)


def profiled(link: FarLink) -> LinkTimes:
    """What an agent and a head measure between the ends."""
    return LinkTimes(**_both(link, "profile", []))


def _both(link: FarLink, what: str, arguments: Sequence[str]) -> Any:
    """What the asking end of an experiment prints."""
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        ClusterKey.generate(key)
        started = []
        try:
            for end, role in ((1, "answer"), (0, "ask")):
                command = [sys.executable, "-m", "benchmarks.link_delay", "--end", what, role, str(key), *arguments]
                started.append(link.start(end, command, stdout=subprocess.PIPE))
            out, _ = started[1].communicate(timeout=_PATIENCE_S)
            if started[1].returncode:
                raise RuntimeError("the asking end failed")
            return json.loads(out)
        finally:
            for process in started:
                process.kill()
                process.communicate()


def _end(what: str, role: str, key: ClusterKey, arguments: Sequence[str]) -> None:
    """One end of an experiment, in its namespace."""
    asks = role == "ask"
    here, there = (0, 1) if asks else (1, 0)
    address = (FarLink.addresses[there], _PORTS[there])
    if what == "profile":
        with Sockets(key, heartbeat_s=None) as sockets:
            inbox, _ = sockets.pull(FarLink.addresses[here], _PORTS[here], max_frame_bytes=LONGEST_MESSAGE_BYTES)
            outbox, _ = sockets.push(address, queue=0)
            with link_end(inbox, outbox, asks=asks) as end:
                if asks:
                    print(json.dumps(asdict(_timed(end))))
                else:
                    end.answer(_PATIENCE_S, _PATIENCE_S)
        return
    bandwidth_bps, latency_s, seconds = map(float, arguments)
    with Sockets(key) as sockets:
        if asks:
            outbox, monitor = sockets.push(address, queue=4, bandwidth_bps=bandwidth_bps or None, latency_s=latency_s)
            print(json.dumps(_send(outbox, LinkWatch(monitor), seconds)))
        else:
            inbox, _ = sockets.pull(FarLink.addresses[here], _PORTS[here])
            _receive(inbox)


def _timed(end: LinkEnd) -> LinkTimes:
    end.exchange(0, 0, 1, _PATIENCE_S)  # until both are there
    return end.time_link()


def _send(outbox: Any, watch: LinkWatch, seconds: float) -> dict[str, Any]:
    """Send for so long behind the warm-up. The other end tells over a connection of its own what came when."""
    breaks = 0
    with socket.create_server((FarLink.addresses[0], _PORTS[0])) as listener:
        message = bytes(_MESSAGE_BYTES)
        begin = time.monotonic()
        while time.monotonic() - begin < _WARM_UP_S + seconds:
            breaks += watch.broken()
            if outbox.poll(100, 2):  # POLLOUT
                outbox.send(message, copy=False)
        outbox.send(b"")
        connection, _ = listener.accept()
        with connection, connection.makefile("r") as lines:
            arrived = [float(line) for line in lines]
    full = [when for when in arrived if when - arrived[0] > _WARM_UP_S]
    return {"rate_bps": _MESSAGE_BYTES * (len(full) - 1) / (full[-1] - full[0]), "breaks": breaks}


def _receive(inbox: Any) -> None:
    arrived = []
    while inbox.recv(copy=False).buffer.nbytes:
        arrived.append(time.monotonic())
    with socket.create_connection((FarLink.addresses[0], _PORTS[0])) as connection:
        connection.sendall("".join(f"{when}\n" for when in arrived).encode())


def measure(delay_s: float, loss: float, seconds: float) -> dict[str, Any]:
    """A row of the table."""
    with FarLink(RATE_BPS, delay_s, loss) as link:
        stream = streamed(link, RATE_BPS, delay_s, seconds)
    with FarLink(RATE_BPS, delay_s, loss) as link:
        times = profiled(link)
        found = fit_link(times.trips_s, times.sent, times.received)
    return {
        "delay_s": delay_s,
        "loss": loss,
        "stream_bps": stream.rate_bps,
        "breaks": stream.breaks,
        "profile_bps": found.bandwidth_bps,
        "profile_latency_s": found.latency_s,
    }


def show(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table."""
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="ascii").strip()
    table = Table(title=f"The stage link at {RATE_BPS * 8 / 1e6:g} Mbit/s, TCP with {congestion}")
    for column in ("one way, ms", "lost", "stream, MB/s", "of the rate", "breaks", "profile, MB/s", "profile, ms"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['delay_s'] * 1e3:g}",
            f"{row['loss']:.0%}",
            f"{row['stream_bps'] / 1e6:.2f}",
            f"{row['stream_bps'] / RATE_BPS:.0%}",
            str(row["breaks"]),
            f"{row['profile_bps'] / 1e6:.2f}",
            f"{row['profile_latency_s'] * 1e3:.2f}",
        )
    return table


@click.command()
@click.option("--seconds", type=click.FloatRange(min=0.5), default=4.0, show_default=True, help="Of each stream.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--end", nargs=3, hidden=True)
@click.argument("arguments", nargs=-1)
def main(seconds: float, as_json: bool, end: tuple[str, str, str] | None, arguments: tuple[str, ...]) -> None:
    if end is not None:
        _end(end[0], end[1], ClusterKey.load(Path(end[2])), arguments)
        return
    if (reason := why_not()) is not None:
        raise click.ClickException(reason)
    rows = [measure(delay_s, loss, seconds) for delay_s, loss in CASES]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        Console(width=120).print(show(rows))


if __name__ == "__main__":
    main()
