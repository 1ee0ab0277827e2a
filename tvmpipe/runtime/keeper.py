"""Who has a device, and the process that hosts its stages.

The agent's main process owns one `Keeper`. TVM's RPC sessions, which are processes of their own that end with their
client, reach it through a socket in a private folder; so stages outlive the connection that brought them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from pydantic import BaseModel, ConfigDict, ValidationError

from tvmpipe.runtime.beat import Status
from tvmpipe.runtime.host_process import HostOptions
from tvmpipe.runtime.lifetime import Lifetime
from tvmpipe.runtime.process import describe_exit
from tvmpipe.runtime.spec import HostSpec

logger = logging.getLogger(__name__)

RESERVED_S = 30.0
_REPLACE_S = 3.0  # how long a host may take to begin with something else before it is ended
_LAST_WORDS_S = 0.5  # how long a host may take to say what it has done before it is ended


class Claim(BaseModel):
    """Who asks for a device: `token` proves the same head later, `owner` is for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str
    owner: str


@dataclass
class _Holding:
    """Who has the device. Until stages are ready it ends at `until` (monotonic seconds)."""

    claim: Claim
    since: float
    until: float


class _Host:
    """A host process and what it last said; `lifetime` is told what it has done."""

    def __init__(self, options: HostOptions, lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tvmpipe.runtime.host_process", options.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.state: dict[str, Any] = {"state": "starting", "session": "", "message": ""}
        self.spec: HostSpec | None = None
        self.reused = False
        self._status: tuple[Status, float] | None = None
        self._told = time.monotonic()
        self._ended = False
        self._listener = threading.Thread(target=self._listen, name="tvmpipe-host-answers", daemon=True)
        self._listener.start()

    @property
    def usable(self) -> bool:
        """Whether it can be told to serve something else: what it holds now goes first."""
        return self._process.poll() is None and self.state["state"] in ("ready", "idle", "failed")

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self, spec: HostSpec) -> None:
        assert self._process.stdin is not None
        self.state = {"state": "starting", "session": spec.session, "message": ""}
        self._status = None
        self.reused, self.spec, self._told = self.spec is not None, spec, time.monotonic()
        self._process.stdin.write(json.dumps({"open": spec.model_dump(mode="json")}) + "\n")

    @property
    def deaf(self) -> bool:
        """Whether it was told to do something else and has not begun: a stage that hangs, most likely."""
        return self.reused and self.state["state"] == "starting" and time.monotonic() - self._told > _REPLACE_S

    @property
    def status(self) -> dict[str, Any] | None:
        """What it last told of its session, with the seconds since then as `age_s`."""
        if self._status is None:
            return None
        status, heard = self._status
        return {**status.model_dump(mode="json", exclude={"spans"}), "age_s": time.monotonic() - heard}

    def end(self) -> None:
        """End it, and wait until what it had done is known, if it can say so."""
        self._ended = True
        if self.state["state"] == "ready":
            assert self._process.stdin is not None
            # Errors: it has ended by itself, or does not answer.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._process.stdin.write(json.dumps({"close": True}) + "\n")
                self._process.wait(_LAST_WORDS_S)
        self._process.kill()
        self._process.wait()
        self._listener.join(_LAST_WORDS_S)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        wanted = ("starting", "loading", "ready", "failed", "expired", "idle")
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
                if "status" in answer:
                    status = Status.model_validate(answer["status"])
                    self._lifetime.take(status)
                    if status.session == self.state["session"]:
                        self._status = (status, time.monotonic())
                    continue
                # What an earlier opening ends with says nothing about the one that replaced it.
                if answer["session"] == self.state["session"] and answer["state"] in wanted:
                    self.state = answer
        code = self._process.wait()
        message = f"the stage host ended ({describe_exit(code)})"
        if not self._ended:
            logger.warning("%s", message)
        if self.state["state"] not in ("failed", "expired"):
            self.state = {**self.state, "state": "failed", "message": message}


class Keeper:
    """Answers requests of RPC sessions; one request at a time, in the thread that calls `serve`.

    Attributes: `server_up` whether the RPC server runs, `server_starts` how often it was started; whoever starts it
    says so here.
    """

    def __init__(self, facts: dict[str, Any], options: HostOptions, address: str) -> None:
        self._facts = facts
        self._options = options
        self._holding: _Holding | None = None
        self._host: _Host | None = None
        self._lifetime = Lifetime()
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
        """End the host."""
        if self._host is not None:
            self._host.end()
        self._socket.close(linger=0)

    def _answer(self, message: bytes) -> dict[str, Any]:
        try:
            request = json.loads(message)
            name = request.pop("do")
            if name == "info":
                return self._info()
            claim = Claim.model_validate(request.pop("claim"))
            if name == "reserve":
                return self._reserve(claim)
            if name == "open":
                return self._open(claim, HostSpec.model_validate(request["spec"]))
            if name == "state":
                return self._state(claim)
            if name == "release":
                return self._release(claim)
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            return {"error": f"malformed request: {error}"}
        return {"error": f"unknown request {name!r}"}

    def _info(self) -> dict[str, Any]:
        self._expire()
        holder = self._holding
        host = self._host
        status = None if host is None else host.status
        return {
            **self._facts,
            "held_by": None if holder is None else holder.claim.owner,
            "held_s": None if holder is None else time.monotonic() - holder.since,
            "host": None if host is None else host.state["state"],
            "host_message": "" if host is None else host.state["message"],
            "host_pid": None if host is None else host.pid,
            "status": status,
            "samples_per_s": {} if status is None else self._lifetime.rates(status["session"]),
            "totals": self._lifetime.totals(),
            "server_up": self.server_up,
            "server_starts": self.server_starts,
        }

    def _reserve(self, claim: Claim) -> dict[str, Any]:
        self._expire()
        now = time.monotonic()
        if self._holding is not None and self._holding.claim.token != claim.token:
            return {"held_by": self._holding.claim.owner, "held_s": now - self._holding.since}
        since = now if self._holding is None else self._holding.since
        self._holding = _Holding(claim, since, now + RESERVED_S)
        return {}

    def _open(self, claim: Claim, spec: HostSpec) -> dict[str, Any]:
        refused = self._reserve(claim)
        if refused:
            return refused
        if self._host is not None and not self._host.usable:
            self._host.end()
            self._host = None
        if self._host is None:
            self._host = _Host(self._options, self._lifetime)
        self._host.open(spec)
        self._lifetime.opened()
        return {}

    def _state(self, claim: Claim) -> dict[str, Any]:
        if self._holding is None or self._holding.claim.token != claim.token or self._host is None:
            return {"state": "failed", "message": "the device was given to somebody else", "session": ""}
        self._holding.until = time.monotonic() + RESERVED_S
        if self._host.deaf:
            assert self._host.spec is not None
            spec = self._host.spec
            self._host.end()
            self._host = _Host(self._options, self._lifetime)
            self._host.open(spec)
        return self._host.state

    def _release(self, claim: Claim) -> dict[str, Any]:
        if self._holding is not None and self._holding.claim.token == claim.token:
            self._free()
        return {}

    def _expire(self) -> None:
        """Free the device when its host has ended or nobody came back for a reservation."""
        if self._holding is None:
            return
        state = self._host.state["state"] if self._host is not None else None
        if state == "ready":
            self._holding.until = time.monotonic() + RESERVED_S
        if state == "expired" or time.monotonic() > self._holding.until:
            logger.info("%s has given up the device", self._holding.claim.owner)
            self._free()

    def _free(self) -> None:
        self._holding = None
        if self._host is not None:
            self._host.end()
            self._host = None


class KeeperClient:
    """Requests to the keeper of this machine, from a process of its own. Raises OSError when none answers."""

    def __init__(self, address: str, timeout_s: float = 5.0) -> None:
        self._address = address
        self._timeout_s = timeout_s

    def ask(self, request: str) -> str:
        """A JSON object as it stands in `Keeper`, and its answer."""
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._address)
            socket.send(request.encode())
            if not socket.poll(int(self._timeout_s * 1e3)):
                raise OSError("the agent does not answer its own session")
            return socket.recv().decode()


def keeper_address(folder: Path) -> str:
    """Where a keeper listens; only this user can reach the folder."""
    return f"ipc://{folder / 'keeper'}"
