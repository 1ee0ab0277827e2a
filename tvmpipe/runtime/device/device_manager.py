"""Who has a device, and the process that hosts its stages.

The agent's main process owns one `DeviceManager`. TVM's RPC sessions, which are processes of their own that end with
their client, reach it through a socket in a private folder; so stages outlive the connection that brought them.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import psutil
import zmq

from tvmpipe.runtime.device.agent_totals import AgentTotals
from tvmpipe.runtime.device.control_groups import ControlGroups
from tvmpipe.runtime.device.host_handle import HostHandle
from tvmpipe.runtime.device.host_options import HostOptions
from tvmpipe.runtime.device.spec import Claim, HostSpec
from tvmpipe.runtime.transport import deadlines
from tvmpipe.units import format_size

logger = logging.getLogger(__name__)


_ASKED_HZ = 4.0  # how often those that wait ask, all together


@dataclass
class _Holding:
    """Who has the device. Until stages are ready it ends at `until` (monotonic seconds)."""

    claim: Claim
    since: float
    until: float


@dataclass
class _Waiting:
    """A head that was refused and will ask again at `due` (monotonic seconds)."""

    owner: str
    due: float


class DeviceManager:
    """Answers requests of RPC sessions; one request at a time, in the thread that calls `serve`.

    `groups` are those that hosts are put into which get what they promised and no more.
    One host serves; with `beside_port` another may get a second opening ready meanwhile, which then takes its place.

    Attributes: `server_up` whether the RPC server runs, `server_starts` how often it was started; whoever starts it
    says so here.
    """

    def __init__(
        self,
        facts: dict[str, Any],
        options: HostOptions,
        address: str,
        beside_port: int | None = None,
        groups: ControlGroups | None = None,
    ) -> None:
        self._facts = facts
        self._options = options
        self._groups = groups
        self._ports = (options.port,) if beside_port is None else (options.port, beside_port)
        self._holding: _Holding | None = None
        self._waiting: dict[str, _Waiting] = {}  # by the token of a head, who was refused first comes first
        self._hosts: list[HostHandle] = []
        self._current: HostHandle | None = None
        self._agent_totals = AgentTotals()
        self.server_up = False
        self.server_starts = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.bind(address)

    def serve(self, seconds: float) -> None:
        """Answer what comes in for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._socket.poll(max(1, int(left * 1e3))):
                self._socket.send(json.dumps(self._answer(self._socket.recv())).encode())
            self._expire()

    def close(self) -> None:
        """End the hosts."""
        self._end_but(None)
        self._socket.close(linger=0)

    def _answer(self, message: bytes) -> dict[str, Any]:
        try:
            request = json.loads(message)
            name = request.pop("do")
            if name == "info":
                return self._info()
            claim = Claim.model_validate(request.pop("claim"))
            if name == "reserve":
                return self._reserve(claim, *(float(request.get(key, 0.0)) for key in ("more_s", "wait_s")))
            if name in ("open", "prepare"):
                spec, port = HostSpec.model_validate(request["spec"]), int(request["port"])
                return self._open(claim, spec, port) if name == "open" else self._prepare(claim, spec, port)
            if name in ("state", "activate", "discard"):
                act = {"state": self._state, "activate": self._activate, "discard": self._discard}[name]
                return act(claim, str(request["session"]))
            if name == "release":
                return self._release(claim)
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # pydantic's is a ValueError
            return {"error": f"malformed request: {error}"}
        except OSError as error:
            return {"failed": f"a stage host cannot be started: {error.strerror or error}"}
        return {"error": f"unknown request {name!r}"}

    def _info(self) -> dict[str, Any]:
        self._expire()
        holder = self._holding
        host = self._current or (self._hosts[0] if self._hosts else None)
        status = None if host is None else host.status
        port = self._options.port if self._current is None else self._current.port
        return {
            **self._facts,
            "link_port": port,
            "beside_port": next((other for other in self._ports if other != port), None),
            "held_by": None if holder is None else holder.claim.owner,
            "held_s": None if holder is None else time.monotonic() - holder.since,
            "host": None if host is None else host.state,
            "host_message": "" if host is None else host.message,
            "host_pid": None if host is None else host.pid,
            "status": status,
            "samples_per_s": {} if status is None else self._agent_totals.rates(status["session"]),
            "totals": self._agent_totals.totals(),
            "server_up": self.server_up,
            "server_starts": self.server_starts,
        }

    def _reserve(self, claim: Claim, more_s: float = 0.0, wait_s: float = 0.0) -> dict[str, Any]:
        """Give the device to a head, or keep it for the one that has it, a lease and `more_s` long.

        Who is refused and asks again within `wait_s` has its turn before those that came later: where any of them
        could be first, whoever comes back at once would have the device again and again.
        """
        self._expire()
        now = time.monotonic()
        self._waiting = {
            token: other for token, other in self._waiting.items() if now < other.due + deadlines.FORGOTTEN_S
        }
        holder = self._holding
        first = next(iter(self._waiting), claim.token)
        if claim.token != (first if holder is None else holder.claim.token):
            return {
                "held_by": self._waiting[first].owner if holder is None else holder.claim.owner,
                "held_s": 0.0 if holder is None else now - holder.since,
                "again_s": self._wait(claim, now, wait_s),
            }
        self._waiting.pop(claim.token, None)
        since = now if holder is None else holder.since
        self._holding = _Holding(claim, since, now + deadlines.LEASE_S + min(max(more_s, 0.0), deadlines.MOST_MORE_S))
        return {}

    def _wait(self, claim: Claim, now: float, wait_s: float) -> float:
        """When a head that was refused should ask again, in seconds.

        Each question takes TVM's one session, which the holder needs too: so however many wait, they ask `_ASKED_HZ`
        times a second in all, the n-th of them a n-th as often as the first.
        """
        if wait_s <= 0:
            self._waiting.pop(claim.token, None)
            return 1 / _ASKED_HZ
        self._waiting.setdefault(claim.token, _Waiting(claim.owner, now))
        shares = sum(1 / place for place in range(1, len(self._waiting) + 1))
        again_s = (list(self._waiting).index(claim.token) + 1) * shares / _ASKED_HZ
        self._waiting[claim.token].due = now + again_s
        return again_s

    def _open(self, claim: Claim, spec: HostSpec, port: int) -> dict[str, Any]:
        """Serve this, and nothing that was served before."""
        if port not in self._ports:
            raise ValueError(f"{port} is no link port of this agent")
        refused = self._reserve(claim)
        if refused:
            return refused
        kept = [host for host in self._hosts if host.port == port and host.can_open(spec)]
        self._end_but(kept[0] if kept else None)
        self._start(spec, port)
        self._current = self._hosts[0]
        return {}

    def _prepare(self, claim: Claim, spec: HostSpec, port: int) -> dict[str, Any]:
        """Get this ready beside what is served."""
        if port not in self._ports:
            raise ValueError(f"{port} is no link port of this agent")
        refused = self._reserve(claim)
        if refused:
            return refused
        current = self._current
        if current is not None and current.serving:
            if current.port == port:
                return {"no_room": "its link port is in use"}
            no_room = self._no_room(current, spec)
            if no_room:
                return {"no_room": no_room}
        for host in [host for host in self._hosts if host is not current]:
            if host.port != port or not host.can_open(spec):
                self._end(host)
        self._start(spec, port)
        return {}

    def _no_room(self, current: HostHandle, spec: HostSpec) -> str:
        """Why the memory does not allow for a second opening; empty when it does."""
        assert current.spec is not None
        new = spec.memory_bytes
        both = new + current.spec.memory_bytes
        offered = int(self._facts["memory_bytes"])
        if both > offered:
            return f"both plans need {format_size(both)} of memory there, it offers {format_size(offered)}"
        available = psutil.virtual_memory().available
        if new > available:
            return f"it would need {format_size(new)} more memory, {format_size(available)} are available there"
        return ""

    def _start(self, spec: HostSpec, port: int) -> None:
        """Tell the host on a port to serve this; a new one where there is none, or it has just ended."""
        host = next((one for one in self._hosts if one.port == port), None)
        if host is None or not host.open(spec):
            if host is not None:
                self._end(host)
            host = HostHandle(replace(self._options, port=port), self._agent_totals, self._groups)
            self._hosts.append(host)
            host.open(spec)  # one that has ended already says why as its state
        self._agent_totals.opened()

    def _state(self, claim: Claim, session: str) -> dict[str, Any]:
        if self._holding is None or self._holding.claim.token != claim.token:
            return {"state": "failed", "message": "the device was given to somebody else", "session": "", "took": {}}
        host = self._host_of(session)
        if host is None:
            return {"state": "failed", "message": "another opening has replaced it", "session": "", "took": {}}
        self._holding.until = max(self._holding.until, time.monotonic() + deadlines.LEASE_S)
        if host.deaf:
            assert host.spec is not None
            spec, current = host.spec, host is self._current
            self._end(host)
            self._start(spec, host.port)
            host = self._hosts[-1]
            self._current = host if current else self._current
        told = host.status
        return {**host.answer(), "unlinked": None if told is None else told["unlinked"]}

    def _activate(self, claim: Claim, session: str) -> dict[str, Any]:
        """What was prepared takes the place of what was served."""
        host = self._host_of(session)
        if self._holding is None or self._holding.claim.token != claim.token or host is None:
            return {"failed": "what was prepared is not there any more"}
        self._current = host
        self._end_but(host)
        return {}

    def _discard(self, claim: Claim, session: str) -> dict[str, Any]:
        """What was prepared is not wanted any more."""
        host = self._host_of(session)
        if self._holding is not None and self._holding.claim.token == claim.token and host is not None:
            self._end(host)
        return {}

    def _release(self, claim: Claim) -> dict[str, Any]:
        self._waiting.pop(claim.token, None)
        if self._holding is not None and self._holding.claim.token == claim.token:
            self._free()
        return {}

    def _expire(self) -> None:
        """Free the device when its host has ended or nobody came back for a reservation."""
        if self._holding is None:
            for host in [host for host in self._hosts if not host.alive or host.idle_s() > deadlines.SPARE_HOST_S]:
                self._end(host)
            return
        expired = [host for host in self._hosts if host.state == "expired"]
        for host in expired:
            self._end(host)
        now = time.monotonic()
        if any(host.state == "ready" for host in self._hosts):
            self._holding.until = max(self._holding.until, now + deadlines.LEASE_S)
        if (expired and not self._hosts) or now > self._holding.until:
            logger.info("%s has given up the device", self._holding.claim.owner)
            self._free()

    def _free(self) -> None:
        """Nobody has the device. A host that is just starting goes on, for whoever comes next."""
        self._holding = None
        starting = next((host for host in self._hosts if host.starts and host.port == self._options.port), None)
        self._end_but(starting)
        self._current = None
        if starting is not None:
            starting.forget()

    def _host_of(self, session: str) -> HostHandle | None:
        return next((host for host in self._hosts if host.spec is not None and host.spec.session == session), None)

    def _end_but(self, kept: HostHandle | None) -> None:
        for host in [host for host in self._hosts if host is not kept]:
            self._end(host)

    def _end(self, host: HostHandle) -> None:
        host.end()
        self._hosts.remove(host)
        if self._current is host:
            self._current = None
