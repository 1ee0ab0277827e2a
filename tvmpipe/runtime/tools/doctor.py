"""Why a device cannot be used from here: every step on the way to it, tried in order.

A device is first reached as a head would reach it. Only when that fails is each layer tried on its own, to tell
which one it is: TVM's server takes a bare connection for a lost tracker and registers anew.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from tvmpipe.errors import DeviceLostError, DeviceUnavailableError, InputError, TrackerError, TvmpipeError
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.security.tls_client import NotATlsServerError, UnreachableError, WrongKeyError
from tvmpipe.runtime.tools.cluster_status import device_with_key
from tvmpipe.runtime.tools.linktest import dial_back, measure_link, try_pair
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address, is_loopback, parse_address, resolve
from tvmpipe.runtime.transport.discover import AUTO, find_tracker
from tvmpipe.runtime.transport.rpc_session import RpcSession, open_session
from tvmpipe.runtime.transport.tracker import DeviceAddress, Tracker
from tvmpipe.runtime.transport.versions import NAMES, difference, work_together
from tvmpipe.runtime.transport.watchdog import Watchdog
from tvmpipe.units import format_duration, format_size

Result = Literal["ok", "warning", "failed", "skipped"]

TRACKER_STEPS = ("tracker address", "tracker connection", "tracker handshake", "keys")
_REACHING = ("registration", "address", "connection", "tls", "rpc")
DEVICE_STEPS = (*_REACHING, "agent", "versions", "machine", "holder", "dial back", "link")
PAIR_STEP = "pair"
PAIRED_AFTER = DEVICE_STEPS[-1]
_SLOW_LINK_BPS = 1e6


@dataclass(frozen=True)
class Step:
    """One thing that was tried. `device` is empty for the tracker; `remedy` what to type or change."""

    device: str
    name: str
    result: Result
    message: str
    remedy: str = ""


class _Stopped(Exception):
    """A step failed; those after it would only say so again."""


@dataclass
class _Checks:
    """The steps of one device, or of the tracker."""

    device: str
    steps: list[Step] = field(default_factory=list)

    def ok(self, name: str, message: str) -> None:
        self.steps.append(Step(self.device, name, "ok", message))

    def warn(self, name: str, message: str, remedy: str = "") -> None:
        self.steps.append(Step(self.device, name, "warning", message, remedy))

    def skip(self, name: str, message: str) -> None:
        self.steps.append(Step(self.device, name, "skipped", message))

    def fail(self, name: str, error: object, remedy: str) -> NoReturn:
        self.steps.append(Step(self.device, name, "failed", str(error), remedy))
        raise _Stopped


@dataclass(frozen=True)
class _DeviceCheck:
    """One device being looked at."""

    tracker: Tracker
    key: str
    cluster_key: ClusterKey | None
    watchdog: Watchdog
    checks: _Checks


def diagnose(
    tracker: str, key: str | None, cluster_key: ClusterKey | None, say: Callable[[str], None] = lambda _: None
) -> Iterator[Step]:
    """Try every step for the devices under `key`, or under every key of the tracker; `say` is told what is tried.

    Then, as a plan may have any of them send to any other, each pair of those that can be used: one step each, whose
    `device` names both.
    """
    checks = _Checks("")
    say(f"tracker {tracker}")
    try:
        tracker, why = _named(tracker, cluster_key, checks)
        keys = _tracker(tracker, why, key, checks)
    except _Stopped:
        keys = {}
    yield from _complete(checks, TRACKER_STEPS)
    watchdog = Watchdog()
    try:
        usable: list[tuple[str, str]] = []
        for name, total in keys.items():
            seen: set[str] = set()
            # The tracker gives out devices of one key in turn, unless others ask as well.
            for number in range(1, total + 1):
                label = name if total == 1 else f"{name} {number}"
                say(f"device {label}")
                steps = list(_device(tracker, name, label, cluster_key, watchdog, seen))
                yield from steps
                if steps[-1].name == PAIRED_AFTER and steps[-1].result in ("ok", "warning"):
                    usable.append((label, name))
        yield from _pairs(tracker, usable, cluster_key, watchdog, say)
    finally:
        watchdog.stop()


def _complete(checks: _Checks, names: tuple[str, ...]) -> Iterator[Step]:
    """Its steps, and those that were not tried."""
    yield from checks.steps
    done = {step.name for step in checks.steps}
    for name in names:
        if name not in done:
            yield Step(checks.device, name, "skipped", "")


def _named(tracker: str, key: ClusterKey | None, checks: _Checks) -> tuple[str, str]:
    """A tracker's address, and how that was found where nobody has typed it."""
    if tracker != AUTO:
        return tracker, ""
    try:
        found = find_tracker(key)
    except TvmpipeError as error:
        checks.fail("tracker address", error, "give --tracker HOST:PORT, where it is known")
    return found.address, found.why


def _tracker(address: str, why: str, key: str | None, checks: _Checks) -> dict[str, int]:
    """How many devices each wanted key has."""
    host, port = parse_address(address)
    numeric = _resolve(checks, "tracker address", host)
    checks.ok("tracker address", (f"{host} is {numeric}" if host != numeric else numeric) + (why and f": {why}"))
    _dial(checks, "tracker connection", host, port, f"`tvmpipe tracker --port {port}` starts one")
    checks.ok("tracker connection", f"something listens at {address}")
    try:
        with Tracker(address, timeout_s=deadlines.STEP_S) as tracker:
            keys = {status.key: status.total for status in tracker.status() if status.total}
    except TrackerError as error:
        checks.fail("tracker handshake", error, "give the address of the tracker; an agent has another port")
    checks.ok("tracker handshake", "it is a TVM RPC tracker")
    names = ", ".join(keys) or "none"
    start = f"start `tvmpipe agent --tracker {address} --key {key or 'NAME'}` on the device"
    if not keys or (key is not None and key not in keys):
        wanted = "no device" if key is None else f"no device with key {key!r}"
        checks.fail("keys", f"{wanted} is registered; registered keys: {names}", start)
    checks.ok("keys", f"registered: {names}")
    return keys if key is None else {key: keys[key]}


def _device(
    address: str, key: str, label: str, cluster_key: ClusterKey | None, watchdog: Watchdog, seen: set[str]
) -> Iterator[Step]:
    checks = _Checks(label)
    try:
        with Tracker(address, timeout_s=deadlines.STEP_S) as tracker:
            session = _reach(_DeviceCheck(tracker, key, cluster_key, watchdog, checks), seen)
        try:
            _examine(session, cluster_key, checks)
        finally:
            session.close()
    except _Stopped:
        pass
    except TvmpipeError as error:
        last = checks.steps[-1].name if checks.steps else "registration"
        following = DEVICE_STEPS[min(DEVICE_STEPS.index(last) + 1, len(DEVICE_STEPS) - 1)]
        checks.steps.append(Step(label, following, "failed", str(error), "look at the agent's output on the device"))
    yield from _complete(checks, DEVICE_STEPS)


def _reach(check: _DeviceCheck, seen: set[str]) -> RpcSession:
    """A session with a device that was not seen before, step by step where it fails."""
    checks = check.checks
    busy = "wait until it is free; if nobody uses it, its agent hangs: start it again"
    refused: tuple[DeviceAddress, TvmpipeError] | None = None
    for attempt in range(3):
        try:
            grant = check.tracker.request(check.key, deadlines.FREE_S)
        except DeviceUnavailableError:
            if refused is not None:
                _explain(check, *refused)
            checks.fail("registration", f"it is registered but was not free for {deadlines.FREE_S:g} s", busy)
        where = format_address(grant.host, grant.port)
        try:
            session = RpcSession(device_with_key(check.key), grant, check.watchdog, deadlines.STEP_S, check.cluster_key)
        except DeviceLostError as error:
            # What TVM says of a match key that is worth nothing any more: the device has registered anew since.
            if attempt == 0 and "cannot find server that matches" in str(error):
                refused = grant, error
                continue
            _explain(check, grant, error)
        except TvmpipeError as error:
            _explain(check, grant, error)
        if where in seen and attempt < 2:
            session.close()
            time.sleep(deadlines.DEVICE_AGAIN_S)
            continue
        seen.add(where)
        checks.ok("registration", "registered and free")
        checks.ok("address", where)
        checks.ok("connection", "it accepts connections")
        if check.cluster_key is not None:
            checks.ok("tls", "both ends hold the cluster key")
        else:
            checks.skip("tls", "no cluster key was given")
        checks.ok("rpc", "it speaks TVM RPC")
        return session
    raise AssertionError("not reached")


def _explain(check: _DeviceCheck, grant: DeviceAddress, error: TvmpipeError) -> NoReturn:
    """Find the layer that failed."""
    checks = check.checks
    checks.ok("registration", "registered and free")
    numeric = _resolve(checks, "address", grant.host)
    where = format_address(grant.host, grant.port)
    checks.ok("address", where)
    remedy = f"start its agent again, and let TCP port {grant.port} through its firewall"
    if is_loopback(numeric) and not is_loopback(parse_address(check.tracker.address)[0]):
        remedy = "it registered under loopback, which is this machine: start its agent with --host 0.0.0.0"
    _dial(checks, "connection", numeric, grant.port, remedy)
    checks.ok("connection", "it accepts connections")
    if check.cluster_key is not None:
        same = "give its agent and this command the same --cluster-key file"
        if isinstance(error, WrongKeyError | NotATlsServerError):
            checks.fail("tls", error, same)
        if isinstance(error, UnreachableError):
            checks.fail("tls", error, "look at its agent's output; start it again if it hangs")
        checks.ok("tls", "both ends hold the cluster key")
        checks.fail("rpc", error, "start its agent again")
    checks.skip("tls", "no cluster key was given")
    hint = "if its agent has a cluster key, give the same file with --cluster-key; else it hangs: start it again"
    checks.fail("rpc", error, hint)


def _examine(session: RpcSession, cluster_key: ClusterKey | None, checks: _Checks) -> None:
    """What a device that answers is, and whether it reaches this machine."""
    agent = AgentClient.of(session)
    if agent is None:
        start = "start `tvmpipe agent` there: tensors then go from device to device"
        checks.warn("agent", "it is a stock TVM RPC server: usable, but tensors pass through the head", start)
        return
    facts = agent.facts
    where = format_address(session.address.host, session.address.port)
    checks.ok("agent", f"it is a tvmpipe agent, process {facts.pid}, at {where}: {facts.address_why}")
    _versions(facts.versions, checks)
    about = f"{facts.machine}, {facts.threads} threads, {format_size(facts.memory_bytes)} of memory offered"
    if facts.emulated is not None:
        machine = facts.emulated.like or "it is"
        about += f"; emulated: {facts.emulated.slowdown:g} times slower than {machine}"
    checks.ok("machine", about)
    if facts.held_by is not None:
        held = f"in use by {facts.held_by} for {format_duration(facts.held_s or 0.0)}"
        checks.warn("holder", held, "wait, or end that process; its lease ends soon after")
    else:
        checks.ok("holder", "nobody has it")
    remedy = "let the device connect to this machine on any port above 1023: it sends results and its state"
    try:
        address, seconds = dial_back(agent)
    except TvmpipeError as error:
        checks.fail("dial back", error, remedy)
    here = f"this machine at {address}, by which that reaches it"
    checks.ok("dial back", f"it connects to {here}, in {format_duration(seconds)}")
    if facts.held_by is not None:
        checks.skip("link", "not measured, so as not to disturb who uses it")
        return
    _link(agent, cluster_key, checks)


def _versions(versions: dict[str, str], checks: _Checks) -> None:
    found = difference(versions)
    if found is None:
        checks.ok("versions", ", ".join(f"{name} {versions[name]}" for name in NAMES) + ", as here")
        return
    message, _, remedy = found.partition(": ")
    if work_together(versions):
        checks.warn("versions", message, remedy)
    else:
        checks.fail("versions", message, remedy)


def _link(agent: AgentClient, cluster_key: ClusterKey | None, checks: _Checks) -> None:
    port = parse_address(agent.link_address, "link")[1]
    try:
        speed = measure_link(agent, cluster_key)
    except TvmpipeError as error:
        remedy = f"let TCP port {port} through the device's firewall, and any above 1023 through this machine's"
        checks.fail("link", error, remedy)
    text = f"{speed.bytes_per_s / 1e6:.1f} MB/s both ways at once, {format_duration(speed.round_trip_s)} there and back"
    if agent.facts.emulated is not None:
        text += " (this machine's way there is not emulated)"
    if speed.bytes_per_s < _SLOW_LINK_BPS:
        checks.warn("link", text, "say so in the cluster file's [[link]], and expect plans that send little")
    else:
        checks.ok("link", text)


def _pairs(
    address: str,
    usable: list[tuple[str, str]],
    cluster_key: ClusterKey | None,
    watchdog: Watchdog,
    say: Callable[[str], None],
) -> Iterator[Step]:
    """Have each pair of devices, of which label and key are given, send to each other."""
    agents: dict[str, AgentClient] = {}
    with contextlib.ExitStack() as stack:
        for label, key in usable if len(usable) > 1 else ():
            try:
                tracker = stack.enter_context(Tracker(address, timeout_s=deadlines.STEP_S))
                session = open_session(
                    tracker, device_with_key(key), watchdog, time.monotonic() + deadlines.FREE_S, cluster_key
                )
                stack.callback(session.close)
                agent = AgentClient.of(session)
            except TvmpipeError as error:
                remedy = "run this again: somebody else uses the device, or its agent has ended"
                yield Step(label, PAIR_STEP, "failed", f"it cannot be reached any more: {error}", remedy)
            else:
                if agent is not None and agent.facts.held_by is None:
                    agents[label] = agent
        for (first, asking), (second, answering) in itertools.combinations(agents.items(), 2):
            name = f"{first} - {second}"
            say(f"the way from {first} to {second} and back")
            try:
                seconds = try_pair(asking, answering)
            except TvmpipeError as error:
                yield Step(name, PAIR_STEP, "failed", str(error), _pair_remedy({first: asking, second: answering}))
            else:
                yield Step(name, PAIR_STEP, "ok", f"they send to each other, in {format_duration(seconds)}")


def _pair_remedy(agents: dict[str, AgentClient]) -> str:
    links = {label: parse_address(agent.link_address, "link") for label, agent in agents.items()}
    inside = [label for label, (host, _) in links.items() if is_loopback(host)]
    if len(inside) == 1:
        host = links[inside[0]][0]
        return f"{inside[0]} is at {host}, which to the other is itself: start its agent with --host 0.0.0.0"
    ways = " and ".join(f"{port} of {label}" for label, (_, port) in links.items())
    return f"let TCP port {ways} through the firewalls between them"


def _resolve(checks: _Checks, name: str, host: str) -> str:
    try:
        return resolve(host)
    except InputError as error:
        checks.fail(name, str(error), "give a numeric address, or add the name")


def _dial(checks: _Checks, name: str, host: str, port: int, remedy: str) -> None:
    """Make a TCP connection and drop it."""
    try:
        socket.create_connection((host, port), timeout=deadlines.STEP_S).close()
    except TimeoutError:
        message = (
            f"{format_address(host, port)} does not answer within {deadlines.STEP_S:g} s: switched off, or a firewall"
        )
        checks.fail(name, message, remedy)
    except OSError as error:
        checks.fail(name, f"{format_address(host, port)}: {error.strerror or error}", remedy)
