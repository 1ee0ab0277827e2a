"""Opens a plan on its devices: finds them, claims them, brings what they lack, and has their stages hosted."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tvmpipe.errors import DeviceError, DeviceHeldError, TvmpipeError
from tvmpipe.manifest import DeviceEntry, PlanEntry, StageEntry
from tvmpipe.runtime.address import address_towards, format_address, is_loopback, own_addresses, parse_address, resolve
from tvmpipe.runtime.control import AgentControl
from tvmpipe.runtime.keeper import Claim
from tvmpipe.runtime.keys import ClusterKey
from tvmpipe.runtime.ports import hold_port
from tvmpipe.runtime.process import user_name
from tvmpipe.runtime.rpc_session import RpcSession, open_session
from tvmpipe.runtime.sockets import Sockets
from tvmpipe.runtime.spec import Opening, host_spec
from tvmpipe.runtime.stock_server import RemoteStages, StockServer
from tvmpipe.runtime.tracker import Tracker
from tvmpipe.runtime.watchdog import Watchdog

if TYPE_CHECKING:
    from tvmpipe.bundle import Bundle

logger = logging.getLogger(__name__)

LEASE_S = 10.0
_STOCK_PORTS = range(9400, 9600)
_RELEASE_S = 3.0
_ASK_AGAIN_S = 0.5
_LOAD_BPS = 20e6  # a device that loads weights from its own store more slowly than this counts as lost


class OpenError(Exception):
    """A device that could not be opened, and why."""

    def __init__(self, device: str, cause: TvmpipeError) -> None:
        super().__init__(str(cause))
        self.device = device
        self.cause = cause


@dataclass(frozen=True)
class Limits:
    """How long things may take: `connect_s` finding a device and dialling back, `wait_s` for one that is in use,
    `timeout_s` a call to a device."""

    connect_s: float
    wait_s: float
    timeout_s: float


@dataclass(frozen=True)
class Opened:
    """A plan on its devices: the session that its messages carry, and each stage link as HOST:PORT."""

    plan: PlanEntry
    session: str
    links: Mapping[str, str]


@dataclass
class _Reached:
    """A device that answers: an agent, or a stock server with the port that stands for its link here."""

    session: RpcSession
    agent: AgentControl | None
    link: str


@dataclass
class Opener:
    """Opens plans of one bundle, one after the other. `heard` tells whether a device of a session has been heard of.

    Attributes: `ports` those of the head's link and status sockets; `sent_bytes` what has been sent so far; `agents`
    what each agent said of itself.
    """

    bundle: Bundle
    tracker: str
    key: ClusterKey | None
    limits: Limits
    max_batches: int
    failover: bool
    trace: bool
    ports: tuple[int, int]
    heard: Callable[[str, str], bool]
    sent_bytes: int = 0
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._watchdog = Watchdog()
        self._claim = Claim(token=secrets.token_hex(8), owner=_owner())
        self._stock: list[tuple[StockServer, RpcSession]] = []
        self._stock_ports = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._closed = False

    def open(self, plan: PlanEntry) -> Opened:
        """Have every stage of `plan` hosted. What was hosted before on these devices ends. Raises OpenError."""
        self._end_stock()
        manifest = self.bundle.manifest
        devices = [manifest.device(name) for name in plan.devices]
        reached: dict[str, _Reached] = {}
        try:
            _for_each(devices, lambda device: reached.__setitem__(device.name, self._reach(device)))
            session = secrets.token_hex(8)
            links = {name: one.link for name, one in reached.items()}
            _check_links(plan, {name: one.link for name, one in reached.items() if one.agent is not None})
            _for_each(devices, lambda device: self._host(plan, device, reached[device.name], session, links))
        finally:
            for one in reached.values():
                if one.agent is not None:
                    one.session.close()
        return Opened(plan, session, links)

    def back(self, device: str) -> bool:
        """Whether a lost device can be had again."""
        entry = self.bundle.manifest.device(device)
        try:
            with Tracker(self.tracker, timeout_s=1.0) as tracker:
                session = open_session(tracker, entry, self._watchdog, time.monotonic() + 1.0, self.key)
        except DeviceError:
            return False
        try:
            agent = AgentControl.of(session)
            if agent is not None:
                agent.reserve(self._claim)
        except DeviceError:
            return False
        finally:
            session.close()
        return True

    def close(self) -> None:
        """Give every device back that still answers."""
        self._closed = True
        self._end_stock()
        agents = [self.bundle.manifest.device(name) for name in self.agents]
        with contextlib.suppress(OpenError):
            _for_each(agents, self._release)
        self._watchdog.stop()

    def _reach(self, device: DeviceEntry) -> _Reached:
        """A claimed device, waited for while another head has it.

        Between attempts there is no session: a device has one at a time, and its holder needs one to give it back.
        """
        deadline = time.monotonic() + self.limits.wait_s
        told = False
        while True:
            try:
                return self._reach_now(device)
            except DeviceHeldError as error:
                if time.monotonic() > deadline:
                    raise
                if not told:
                    logger.warning("%s; waiting", error)
                told = True
            time.sleep(_ASK_AGAIN_S)

    def _reach_now(self, device: DeviceEntry) -> _Reached:
        if self._closed:
            raise DeviceError("the pipeline was closed")
        with Tracker(self.tracker, timeout_s=min(5.0, self.limits.connect_s)) as tracker:
            deadline = time.monotonic() + max(self.limits.connect_s, self.limits.wait_s)
            session = open_session(tracker, device, self._watchdog, deadline, self.key)
        try:
            session.timeout_s = self.limits.timeout_s
            agent = AgentControl.of(session)
            if agent is None:
                logger.warning(
                    "device %s is a stock RPC server: tensors pass through here, weights are sent each time, and it "
                    "uses its own number of threads",
                    device.name,
                )
                port = self._stock_ports.enter_context(hold_port("127.0.0.1", _STOCK_PORTS))
                host = "127.0.0.1" if self.key is None else _here(session)
                return _Reached(session, None, format_address(host, port))
            agent.reserve(self._claim)
            self.agents[device.name] = agent.facts
            return _Reached(session, agent, agent.link_address)
        except BaseException:
            session.close()
            raise

    def _host(
        self, plan: PlanEntry, device: DeviceEntry, reached: _Reached, session: str, links: Mapping[str, str]
    ) -> None:
        here = _here(reached.session)
        opening = Opening(
            session=session,
            owner=self._claim.owner,
            links=dict(links),
            head_link=format_address(here, self.ports[0]),
            head_status=format_address(here, self.ports[1]),
            lease_s=LEASE_S,
            max_batches=self.max_batches,
            trace=self.trace,
        )
        spec = host_spec(self.bundle.manifest, plan, device.name, opening)
        if reached.agent is None:
            self._host_here(spec, reached)
            return
        reached.agent.check(spec.stages)
        self._count(reached.agent.send(self.bundle, [*spec.stages, *self._spare(device.name)]))
        deadline = time.monotonic() + self.limits.connect_s + sum(s.weight_bytes for s in spec.stages) / _LOAD_BPS
        reached.agent.open(self._claim, spec, lambda: self.heard(session, device.name), deadline)

    def _spare(self, device: str) -> Iterable[StageEntry]:
        """With failover, what the device would need for any other plan is brought now, while there is time."""
        plans = self.bundle.manifest.plans if self.failover else ()
        return (stage for plan in plans for stage in plan.stages if stage.device == device)

    def _host_here(self, spec: Any, reached: _Reached) -> None:
        runner = RemoteStages(reached.session, self.bundle, spec.stages)
        self._count(runner.sent_bytes)
        server = StockServer(spec, runner, lambda: Sockets(self.key), parse_address(reached.link, "link"))
        self._stock.append((server, reached.session))

    def _count(self, sent_bytes: int) -> None:
        with self._lock:
            self.sent_bytes += sent_bytes

    def _end_stock(self) -> None:
        for server, session in self._stock:
            session.close()
            server.stop()
        self._stock.clear()
        self._stock_ports.close()

    def _release(self, device: DeviceEntry) -> None:
        with contextlib.suppress(DeviceError):  # it is gone, and with it what it held for us
            with Tracker(self.tracker, timeout_s=_RELEASE_S) as tracker:
                session = open_session(tracker, device, self._watchdog, time.monotonic() + _RELEASE_S, self.key)
            try:
                session.timeout_s = _RELEASE_S
                agent = AgentControl.of(session)
                if agent is not None:
                    agent.release(self._claim)
            finally:
                session.close()


def _for_each(devices: Iterable[DeviceEntry], work: Callable[[DeviceEntry], None]) -> None:
    """Do `work` for all devices at the same time; raises OpenError for the first, in their order, that failed.

    Daemon threads, unlike an executor's: a device that hangs must not keep the process from ending.
    """
    failed: dict[str, Exception] = {}

    def guarded(device: DeviceEntry) -> None:
        try:
            work(device)
        except Exception as error:  # noqa: BLE001  # raised again below
            failed[device.name] = error

    threads = [threading.Thread(target=guarded, args=(device,), daemon=True) for device in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, error in failed.items():
        if isinstance(error, TvmpipeError):
            raise OpenError(name, error) from error
        raise error


def _check_links(plan: PlanEntry, links: Mapping[str, str]) -> None:
    """Raises OpenError when a device would be sent to at a loopback address by one on another machine."""
    hosts = {name: resolve(parse_address(link, "link")[0]) for name, link in links.items()}
    if len({is_loopback(host) for host in hosts.values()}) < 2:
        return
    here = own_addresses()
    for link in plan.links:
        there, receiver = hosts.get(link.sender), hosts.get(link.receiver)
        if there is None or receiver is None or not is_loopback(receiver) or is_loopback(there) or there in here:
            continue
        cause = DeviceError(
            f"device {link.receiver} is at {receiver}, which to device {link.sender} at {there} is itself: start the "
            f"agent of {link.receiver} with --host 0.0.0.0 or with the address that the others have for its machine"
        )
        raise OpenError(link.receiver, cause)


def _here(session: RpcSession) -> str:
    """This machine's address as the device reaches it."""
    return address_towards(session.address.host, session.address.port)


def _owner() -> str:
    return f"{user_name()}@{socket.gethostname()} (process {os.getpid()})"
