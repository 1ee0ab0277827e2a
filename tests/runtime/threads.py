"""A pipeline whose devices are threads of this process: real sockets and messages, no agents and no compiled code."""

from __future__ import annotations

import contextlib
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from tvmpipe.errors import DeviceError
from tvmpipe.manifest import Manifest, PlanEntry
from tvmpipe.runtime.device.hosting import HostedSession
from tvmpipe.runtime.device.spec import Opening, host_spec
from tvmpipe.runtime.head.agent_facts import AgentFacts, check_agent_facts
from tvmpipe.runtime.head.opened import HeadEnd, Opened, OpenError
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.runtime.head.replanner import Extension, Replanner
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.transport.address import format_address
from tvmpipe.runtime.transport.ports import hold_port
from tvmpipe.runtime.transport.sockets import Sockets

FACTS: dict[str, Any] = {
    "tvmpipe": "1",
    "apache-tvm": "1",
    "machine": "x86_64",
    "threads": 1,
    "memory_bytes": 1 << 30,
    "pid": 7,
    "link_address": None,
    "link_port": 9200,
    "beside_port": 9201,
    "address_why": "it was told to",
    "runners": ["llvm"],
    "features": [],
    "emulated": None,
    "held_by": None,
    "held_s": None,
    "host": None,
    "host_message": "",
    "host_pid": None,
    "status": None,
    "samples_per_s": {},
    "totals": {"sessions": 0, "refused": 0, "stages": []},
    "server_up": True,
    "server_starts": 1,
}
"""What an agent that does nothing says of itself."""

Compute = Callable[[str, Sequence[NDArray[Any]]], list[NDArray[Any]]]
"""Outputs of a stage for its inputs."""


def add_one(stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """What stages do unless told otherwise."""
    return [inputs[0] + 1]


@dataclass
class Device:
    """A thread that hosts stages, and whether it can be had."""

    name: str
    compute: Compute = add_one
    there: bool = True
    sessions: dict[str, Host] = field(default_factory=dict)

    def run(self, stage: str, batch: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """As a runner."""
        return self.compute(stage, inputs)

    def die(self) -> None:
        """Vanish with everything that is hosted."""
        self.there = False
        for session in list(self.sessions):
            self.end(session)

    def end(self, session: str) -> None:
        """End one session."""
        if (host := self.sessions.pop(session, None)) is not None:
            host.stop()


class Host:
    """One session on a device, in a thread."""

    def __init__(self, device: Device, spec: Any, port: int) -> None:
        self._ready = threading.Event()
        self._stopped = threading.Event()
        name = f"tvmpipe-thread-{device.name}"
        self._thread = threading.Thread(target=self._work, args=(device, spec, port), name=name, daemon=True)
        self._thread.start()
        assert self._ready.wait(10.0)

    def stop(self) -> None:
        """End it; its sockets are closed afterwards."""
        self._stopped.set()
        self._thread.join(10.0)

    def _work(self, device: Device, spec: Any, port: int) -> None:
        with Sockets() as sockets:
            hosted = HostedSession(spec, device, sockets, ("127.0.0.1", port), self._stopped)
            self._ready.set()
            hosted.serve()


class ThreadDeployer:
    """A `PlanDeployer` whose `devices` are those of the manifest, by name."""

    def __init__(self, manifest: Manifest, devices: dict[str, Device]) -> None:
        self.agents: dict[str, Any] = {}
        self.sent_bytes = 0
        self.sessions: frozenset[str] = frozenset()
        self.prepared = 0
        self.given_back: list[str] = []
        self._manifest = manifest
        self._devices = devices
        self._running: Opened | None = None

    def open(self, plan: PlanEntry, head: HeadEnd) -> Opened:
        """Stop what runs, then host the plan."""
        self.close()
        self._running = self._host(plan, head)
        return self._running

    def prepare(self, plan: PlanEntry, head: HeadEnd) -> Opened:
        """Host the plan beside what runs."""
        self.prepared += 1
        return self._host(plan, head)

    def activate(self, opened: Opened) -> None:
        """What ran before stays as it is, without work: ZeroMQ aborts this process where a handshake is cut short."""
        self._running = opened

    def discard(self, opened: Opened) -> None:
        """What was prepared stays as it is."""

    def extend(self, manifest: Manifest) -> None:
        """There are devices and plans more."""
        self._manifest = manifest

    def add_files(self, extension: Extension) -> None:
        """Threads need no files."""

    def registered(self) -> dict[str, int]:
        """Devices that are there."""
        return {name: 1 for name, device in self._devices.items() if device.there}

    def look(self, key: str) -> AgentFacts | None:
        """As an agent with a thread would say."""
        if key not in self._devices or not self._devices[key].there:
            raise DeviceError(f"no device with key {key!r} is registered")
        return check_agent_facts(FACTS)

    def give_back(self, device: str) -> None:
        """Note it."""
        self.given_back.append(device)

    def back(self, device: str) -> bool:
        """Whether a device can be had."""
        return self._devices[device].there

    def close(self) -> None:
        """End all."""
        self._running = None
        for device in self._devices.values():
            for session in list(device.sessions):
                device.end(session)

    def _host(self, plan: PlanEntry, head: HeadEnd) -> Opened:
        session = secrets.token_hex(8)
        self.sessions |= {session}
        # By chance: other tests look for ports too, and these are let go before they are used.
        first = random.randrange(20000, 31000)
        with contextlib.ExitStack() as held:
            ports = {name: held.enter_context(hold_port("127.0.0.1", range(first, 32000))) for name in plan.devices}
        links = {name: format_address("127.0.0.1", port) for name, port in ports.items()}
        link, status = (format_address("127.0.0.1", port) for port in (head.link_port, head.status_port))
        opening = Opening(
            session=session,
            owner="a test",
            links=links,
            head_link=link,
            head_status=status,
            lease_s=10.0,
            max_batches=head.max_batches,
        )
        for name in plan.devices:
            device = self._devices[name]
            if not device.there:
                raise OpenError(name, DeviceError(f"device {name} is not there"))
            device.sessions[session] = Host(device, host_spec(self._manifest, plan, name, opening), ports[name])
        return Opened(plan, session, links)


@dataclass
class ThreadPipeline:
    """A pipeline and its devices."""

    pipe: Pipeline
    devices: dict[str, Device]
    deployer: ThreadDeployer


@contextlib.contextmanager
def thread_pipeline(
    manifest: Manifest,
    settings: Settings,
    inflight: int = 4,
    replanner: Replanner | None = None,
    told: Callable[[str], None] = lambda sentence: None,
) -> Iterator[ThreadPipeline]:
    """A manifest's pipeline, running on threads."""
    devices = {entry.name: Device(entry.name) for entry in manifest.devices}
    deployer = ThreadDeployer(manifest, devices)
    with Pipeline(
        manifest, deployer, inflight=inflight, settings=settings, replanner=replanner, on_decision=told
    ) as pipe:
        yield ThreadPipeline(pipe, devices, deployer)
