"""Opens a plan on its devices: finds them, claims them, brings what they lack, and has their stages hosted."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tvmpipe.errors import DeviceError, DeviceLostError
from tvmpipe.manifest import DeviceEntry, Files, Manifest, PlanEntry, StageEntry
from tvmpipe.process import user_name
from tvmpipe.runtime.device.spec import Claim, HostSpec, Opening, host_spec
from tvmpipe.runtime.head.agent_client import AgentClient, NoRoom
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.head.attempt import Attempt, Attempts, for_each
from tvmpipe.runtime.head.claims import Claims, Reached
from tvmpipe.runtime.head.delivery.deliver import Delivered, Receiver, deliver
from tvmpipe.runtime.head.link_checks import check_links, check_reachable
from tvmpipe.runtime.head.opened import HeadEnd, NoRoomError, Opened, OpenError, any_device
from tvmpipe.runtime.head.options import ConnectOptions
from tvmpipe.runtime.head.replanner import Extension, MoreFiles
from tvmpipe.runtime.head.stock_server import RemoteStages, StockServer
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import (
    address_towards,
    format_address,
    parse_address,
)
from tvmpipe.runtime.transport.ports import hold_port
from tvmpipe.runtime.transport.rpc_session import RpcSession
from tvmpipe.runtime.transport.sockets import Sockets

logger = logging.getLogger(__name__)

_STOCK_PORTS = range(9400, 9600)


class Deployer:
    """Opens plans of one bundle, one after the other.

    Attributes: `sent_bytes` what has been sent so far; `agents` what each agent said of itself.
    """

    def __init__(
        self, manifest: Manifest, files: Files, tracker: str, key: ClusterKey | None, options: ConnectOptions
    ) -> None:
        self.sent_bytes = 0
        self.agents: dict[str, AgentFacts] = {}
        self._manifest = manifest
        self._files = MoreFiles(files)
        self._key = key
        self._options = options
        self._claims = Claims(tracker, key, options.limits, Claim(token=secrets.token_hex(8), owner=_owner()))
        self._stock: list[tuple[StockServer, RpcSession]] = []
        self._stock_ports = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._opening = threading.Lock()  # one of `open`, `prepare`, `activate`, `discard` at a time
        self._attempts = Attempts()
        self._sessions: set[str] = set()

    @property
    def sessions(self) -> frozenset[str]:
        """Those of plans that are open, being opened, or prepared: their devices are to be answered."""
        with self._lock:
            return frozenset(self._sessions)

    def open(self, plan: PlanEntry, head: HeadEnd) -> Opened:
        """Have every stage of `plan` hosted. What was hosted before on these devices ends. Raises OpenError.

        What is being prepared is given up.
        """
        self._attempts.give_up("prepare", "another plan is opened")
        with self._attempt("open", plan) as attempt:
            self._sessions_are(())
            self._end_stock()
            return self._bring_up(plan, head, attempt, beside=False)

    def prepare(self, plan: PlanEntry, head: HeadEnd) -> Opened:
        """Have every stage of `plan` hosted beside those of the plan that runs, which goes on.

        Raises NoRoomError when a device cannot host both, OpenError when one cannot be had or `open` is called.
        """
        with self._attempt("prepare", plan) as attempt:
            if self._stock:
                raise NoRoomError(plan.devices[0], NoRoom("a stock RPC server serves the running plan"))
            return self._bring_up(plan, head, attempt, beside=True)

    def activate(self, opened: Opened) -> None:
        """A prepared plan is the one that runs now: on its devices whatever ran before ends.

        A device that does not answer is heard of by its silence.
        """
        with self._attempt("activate", opened.plan) as attempt:
            self._sessions_are((opened.session,))
            self._tell(opened, attempt, lambda agent: agent.activate(self._claims.own_claim, opened.session))

    def discard(self, opened: Opened) -> None:
        """A prepared plan is not wanted: it ends on its devices, as far as they answer."""
        with self._attempt("discard", opened.plan) as attempt:
            self._forget(opened.session)
            self._tell(opened, attempt, lambda agent: agent.discard(self._claims.own_claim, opened.session))

    def extend(self, manifest: Manifest) -> None:
        """There are devices and plans more than there were."""
        self._manifest = manifest

    def add_files(self, extension: Extension) -> None:
        """Where the files of a plan that was made lie."""
        self._files.add(extension, self._manifest)

    def give_back(self, device: str) -> None:
        """Make a device free for others, if it answers."""
        self._claims.give_back([self._manifest.device(device)])

    def registered(self) -> Mapping[str, int]:
        """How many devices the tracker has of each key. Raises TrackerError."""
        return self._claims.registered()

    def look(self, key: str) -> AgentFacts | None:
        """What a device says of itself that this head has for no other; None for a stock RPC server.

        Raises DeviceError.
        """
        with self._attempts.begin("look") as attempt:
            return self._claims.look(any_device(key), attempt)

    def back(self, device: str) -> bool:
        """Whether a lost device can be had again."""
        with self._attempts.begin("back") as attempt:
            return self._claims.back(self._manifest.device(device), attempt)

    def close(self) -> None:
        """Give up what is under way, wait until it has ended, and give every device back that still answers."""
        if not self._attempts.close():
            logger.warning("a device that hangs keeps an opening from ending")
        self._end_stock()
        self._claims.give_back(self._manifest.devices)
        self._claims.close()

    def _bring_up(self, plan: PlanEntry, head: HeadEnd, attempt: Attempt, *, beside: bool) -> Opened:
        devices = [self._manifest.device(name) for name in plan.devices]
        reached: dict[str, Reached] = {}
        session = secrets.token_hex(8)
        with self._lock:
            self._sessions.add(session)
        try:
            self._claims.claim(devices, attempt, reached)
            links = {device.name: self._link(device, reached[device.name], beside=beside) for device in devices}
            check_links(plan, {name: link for name, link in links.items() if reached[name].agent is not None})
            specs = {
                device.name: self._spec(plan, head, device, reached[device.name], session, links) for device in devices
            }
            self._deliver(devices, reached, specs, links, attempt)
            for_each(
                devices,
                lambda device: self._host(specs[device.name], head, device, reached, links, attempt, beside=beside),
                attempt,
            )
            if beside:
                check_reachable(links)
                for_each(
                    devices, lambda device: self._wait_until_linked(reached[device.name], session, attempt), attempt
                )
        except BaseException as error:
            self._forget(session)
            attempt.give_up("another device failed")
            if isinstance(error, OpenError) and isinstance(error.cause, NoRoom):
                error = NoRoomError(error.device, error.cause)
            self._undo(reached, session, beside=beside)
            raise error from None
        finally:
            for one in reached.values():
                if one.agent is not None:
                    one.session.close()
        return Opened(plan, session, links)

    def _link(self, device: DeviceEntry, reached: Reached, *, beside: bool) -> str:
        """Where the stage link of a device listens."""
        if reached.agent is None:
            if beside:
                raise NoRoomError(device.name, NoRoom(f"the stock RPC server {device.name} hosts one plan only"))
            logger.warning(
                "device %s is a stock RPC server: tensors pass through here, weights are sent each time, and it "
                "uses its own number of threads",
                device.name,
            )
            port = self._stock_ports.enter_context(hold_port("127.0.0.1", _STOCK_PORTS))
            host = "127.0.0.1" if self._key is None else _here(reached.session)
            return format_address(host, port)
        self.agents[device.name] = reached.agent.facts
        serves = reached.agent.facts.serves
        if not beside or not serves:
            return reached.agent.link_address
        address = reached.agent.beside_address
        if address is None:
            raise NoRoomError(device.name, NoRoom(f"the agent on device {device.name} has one link port only"))
        return address

    def _spec(
        self,
        plan: PlanEntry,
        head: HeadEnd,
        device: DeviceEntry,
        reached: Reached,
        session: str,
        links: Mapping[str, str],
    ) -> HostSpec:
        """What a device is told to host. Raises OpenError when it cannot."""
        here = _here(reached.session)
        opening = Opening(
            session=session,
            owner=self._claims.own_claim.owner,
            links=dict(links),
            head_link=format_address(here, head.link_port),
            head_status=format_address(here, head.status_port),
            lease_s=deadlines.LEASE_S,
            max_batches=head.max_batches,
            trace=self._options.trace,
        )
        spec = host_spec(self._manifest, plan, device.name, opening)
        if reached.agent is not None:
            try:
                reached.agent.check(spec.stages, spec.state_bytes)
            except DeviceError as error:
                raise OpenError(device.name, error) from error
        return spec

    def _deliver(
        self,
        devices: Sequence[DeviceEntry],
        reached: Mapping[str, Reached],
        specs: Mapping[str, HostSpec],
        links: Mapping[str, str],
        attempt: Attempt,
    ) -> Delivered:
        """Bring devices the files that they lack; what was brought."""
        receivers = [
            Receiver(
                device,
                reached[device.name],
                links[device.name],
                (*specs[device.name].stages, *self._spare(device.name)),
            )
            for device in devices
            if reached[device.name].agent is not None
        ]
        delivered = deliver(
            receivers, self._files, self._claims.own_claim, self._key, attempt, self._options.on_delivery
        )
        self._count(delivered.sent_bytes)
        return delivered

    def _host(
        self,
        spec: HostSpec,
        head: HeadEnd,
        device: DeviceEntry,
        reached: Mapping[str, Reached],
        links: Mapping[str, str],
        attempt: Attempt,
        *,
        beside: bool,
    ) -> None:
        session, agent = reached[device.name].session, reached[device.name].agent
        if agent is None:
            self._host_here(spec, session, links[device.name])
            return

        def load() -> None:
            own = agent.facts.link_address is None
            with attempt.waits_on(session):
                agent.open(
                    self._claims.own_claim,
                    spec,
                    parse_address(links[device.name], "link")[1] if own else agent.facts.link_port,
                    lambda: head.heard(spec.session, device.name),
                    self._options.limits,
                    attempt.pause,
                    beside=beside,
                )

        try:
            load()
        except (DeviceLostError, NoRoom):
            raise
        except DeviceError:
            # What it finds damaged it removes from its store; then there is something to send again.
            if not self._deliver([device], reached, {device.name: spec}, links, attempt).lacked_bytes:
                raise
            logger.warning("device %s lacked files, or had damaged ones; they were sent again", device.name)
            load()

    def _wait_until_linked(self, reached: Reached, session: str, attempt: Attempt) -> None:
        if reached.agent is None:
            return  # the stages of a stock server are hosted here
        with attempt.waits_on(reached.session):
            reached.agent.wait_until_linked(
                self._claims.own_claim, session, self._options.limits.connect_s, attempt.pause
            )

    def _undo(self, reached: Mapping[str, Reached], session: str, *, beside: bool) -> None:
        """After a failed opening: what was prepared ends; without failover nobody needs the devices any more."""

        def undo(device: DeviceEntry) -> None:
            agent = reached[device.name].agent
            if agent is None:
                return
            agent.session.timeout_s = deadlines.UNDO_S
            with contextlib.suppress(DeviceError):  # it is gone
                if beside:
                    agent.discard(self._claims.own_claim, session)
                elif not self._options.failover:
                    agent.release(self._claims.own_claim)
                    self._claims.released(device.name)

        for_each([self._manifest.device(name) for name in reached], undo)

    def _tell(self, opened: Opened, attempt: Attempt, say: Callable[[AgentClient], None]) -> None:
        """Tell the devices of a prepared plan something, those that answer."""

        def tell(device: DeviceEntry) -> None:
            reached: dict[str, Reached] = {}
            try:
                self._claims.claim([device], attempt, reached)
                reached[device.name].session.timeout_s = deadlines.CHANGE_OVER_S
                agent = reached[device.name].agent
                if agent is not None:
                    say(agent)
            except (DeviceError, OpenError) as error:
                logger.warning("device %s: %s", device.name, error)
            finally:
                for one in reached.values():
                    one.session.close()

        for_each([self._manifest.device(name) for name in opened.plan.devices], tell)

    @contextlib.contextmanager
    def _attempt(self, name: str, plan: PlanEntry) -> Iterator[Attempt]:
        """One opening at a time, which `close` can give up and waits for."""
        with self._attempts.begin(name) as attempt, self._opening:
            try:
                attempt.check()
                yield attempt
            except DeviceError as error:
                raise OpenError(plan.devices[0], error) from error

    def _sessions_are(self, sessions: Iterable[str]) -> None:
        with self._lock:
            self._sessions = set(sessions)

    def _forget(self, session: str) -> None:
        with self._lock:
            self._sessions.discard(session)

    def _spare(self, device: str) -> Iterable[StageEntry]:
        """With failover, what the device would need for any other plan is brought now, while there is time."""
        plans = self._manifest.plans if self._options.failover else ()
        return (stage for plan in plans for stage in plan.stages if stage.device == device)

    def _host_here(self, spec: HostSpec, session: RpcSession, link: str) -> None:
        runner = RemoteStages(session, self._files, spec.stages)
        self._count(runner.sent_bytes)
        server = StockServer(spec, runner, lambda: Sockets(self._key), parse_address(link, "link"))
        self._stock.append((server, session))

    def _count(self, sent_bytes: int) -> None:
        with self._lock:
            self.sent_bytes += sent_bytes

    def _end_stock(self) -> None:
        for server, session in self._stock:
            session.close()
            server.stop()
        self._stock.clear()
        self._stock_ports.close()


def _here(session: RpcSession) -> str:
    """This machine's address as the device reaches it."""
    return address_towards(session.address.host, session.address.port)


def _owner() -> str:
    return f"{user_name()}@{socket.gethostname()} (process {os.getpid()})"
