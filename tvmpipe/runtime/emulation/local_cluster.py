"""A tracker and agents on this machine, as processes of their own: for the demo, tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tvmpipe.process import die_with_parent
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.tracker import wait_for_keys


@dataclass(frozen=True)
class LocalAgent:
    """An agent to start: its key, threads, the memory it should offer (None: what the machine has), and more options
    of `tvmpipe agent`, such as ("--slowdown", "16")."""

    key: str
    threads: int = 1
    memory_bytes: int | None = None
    options: tuple[str, ...] = ()


class LocalCluster:
    """Running processes; `tracker` is the address to give to `tvmpipe.connect`."""

    def __init__(self, tracker: str, out: IO[bytes] | int) -> None:
        self.tracker = tracker
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        self._out = out

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """The process of an agent (by key) or of "tracker"."""
        return self._processes[name]

    def start(self, name: str, *arguments: str) -> None:
        """Run Python with these arguments as a process called `name`."""
        self._commands[name] = [sys.executable, *arguments]
        self.restart(name)

    def restart(self, name: str) -> None:
        """Start a process again that has ended. It ends with the thread that calls this."""
        self._processes[name] = subprocess.Popen(
            self._commands[name],
            stdout=self._out,
            stderr=self._out,
            start_new_session=True,
            preexec_fn=die_with_parent,  # we may be ended in a way that runs no cleanup
        )

    def kill(self, key: str) -> None:
        """End an agent at once, as a power cut would."""
        self._processes[key].send_signal(signal.SIGKILL)
        self._processes[key].wait(timeout=deadlines.KILL_S)

    def pause(self, key: str) -> None:
        """Stop an agent and everything it has started, as a machine that hangs."""
        os.killpg(self._processes[key].pid, signal.SIGSTOP)

    def resume(self, key: str) -> None:
        """Let a paused agent go on."""
        os.killpg(self._processes[key].pid, signal.SIGCONT)

    def stop(self) -> None:
        """End every process."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes.values():
            process.wait(timeout=deadlines.KILL_S)


@contextlib.contextmanager
def local_cluster(agents: list[LocalAgent], *, store: Path, log: Path | None = None) -> Iterator[LocalCluster]:
    """Start a tracker and agents on loopback, wait until all are registered, stop them at the end.

    Each agent keeps its files in a folder of its own under `store`; keys must differ. Raises
    DeviceUnavailableError when one does not come up.
    """
    if len({"tracker", *(agent.key for agent in agents)}) <= len(agents):
        raise ValueError("keys of local agents must differ, and none may be 'tracker'")
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("ab")) if log is not None else subprocess.DEVNULL
        # The tracker takes a number. This socket keeps the port for it: it may bind to it, too, and listen.
        kept = stack.enter_context(socket.socket())
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port: int = kept.getsockname()[1]
        address = f"127.0.0.1:{port}"
        cluster = LocalCluster(address, out)
        stack.callback(cluster.stop)
        serve = f"serve_tracker(listening_socket('127.0.0.1', {port}))"
        code = f"from tvmpipe.runtime.tools.tracker_server import listening_socket, serve_tracker; {serve}"
        cluster.start("tracker", "-c", code)
        for agent in agents:
            arguments = ["--tracker", address, "--key", agent.key, "--threads", str(agent.threads), *agent.options]
            arguments.append("--no-announce")
            if agent.memory_bytes is not None:
                arguments += ["--memory", str(agent.memory_bytes)]
            cluster.start(agent.key, "-m", "tvmpipe", "agent", *arguments, "--store", str(store / agent.key))
        wait_for_keys(address, [agent.key for agent in agents], deadlines.AGENT_START_S)
        yield cluster
