"""A stage host process as the agent that started it sees it."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from tvmpipe.process import describe_exit
from tvmpipe.runtime.device.agent_totals import AgentTotals
from tvmpipe.runtime.device.control_groups import ControlGroups
from tvmpipe.runtime.device.host_options import HostOptions
from tvmpipe.runtime.transport import deadlines

if TYPE_CHECKING:
    from tvmpipe.runtime.device.spec import HostSpec
    from tvmpipe.runtime.device.status import Status

logger = logging.getLogger(__name__)

_IDLE_BYTES = 100 << 20  # a process without stages; what it shares with others counts too
_SAID = ("loading", "ready", "failed", "expired", "idle")


class HostHandle:
    """A host process and what it last said; `lifetime` is told what it has done. Raises OSError when it cannot start.

    Its states: "starting" (Python), "importing" (TVM), "waiting" for what it does for an earlier opening to end,
    "loading" stages, "ready", and what an opening ends with: "failed", "expired" (its head was silent), "idle".

    Used by the agent's main thread, with which the process ends.
    """

    def __init__(self, options: HostOptions, agent_totals: AgentTotals, groups: ControlGroups | None = None) -> None:
        self.port = options.port
        self._offered_bytes = options.memory_bytes
        self.spec: HostSpec | None = None
        self._agent_totals = agent_totals
        self._lock = threading.Lock()
        self._state: dict[str, str] = {"state": "starting", "session": "", "message": ""}
        self._took: dict[str, float] = {}
        self._born = self._since = time.monotonic()
        self._start_s = 0.0  # how long it took until TVM was there
        self._imported = self._ended = self._unwanted = False
        self._status: tuple[Status, float] | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tvmpipe.runtime.device.host_process", json.dumps(options.facts())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._group = None if groups is None else groups.make(f"host-{options.port}")
        # What it is told may be more than a pipe holds, and it reads nothing before it has started.
        self._commands: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._listen, name="tvmpipe-host-answers", daemon=True),
            threading.Thread(target=self._write, name="tvmpipe-host-commands", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def state(self) -> str:
        return self._state["state"]

    @property
    def session(self) -> str:
        """The opening that `state` is about."""
        return self._state["session"]

    @property
    def message(self) -> str:
        """Why it failed."""
        return self._state["message"]

    @property
    def alive(self) -> bool:
        return not self._ended and self._process.poll() is None

    @property
    def serving(self) -> bool:
        """Whether it holds stages for an opening, or will soon."""
        return self.alive and self.spec is not None and self.state in ("waiting", "loading", "ready")

    @property
    def starts(self) -> bool:
        """Whether it has not come to its first stages yet."""
        return self.alive and self.state in ("starting", "importing")

    def can_open(self, spec: HostSpec) -> bool:
        """Whether it can be told to serve this: what it holds goes first.

        One that loads cannot be interrupted; it is worth waiting for when it loads the same stages.
        """
        if self.state == "loading":
            return self.alive and self.spec is not None and self.spec.stages == spec.stages
        return self.alive and not self.deaf

    @property
    def deaf(self) -> bool:
        """Whether it was told to do something else and has not begun: a stage that hangs, most likely.

        A new one would have to start, so the old one gets as long as that takes.
        """
        return self.state == "waiting" and time.monotonic() - self._since > max(deadlines.REPLACE_S, self._start_s)

    @property
    def status(self) -> dict[str, Any] | None:
        """What it last told of its session, with the seconds since then as `age_s`."""
        if self._status is None:
            return None
        status, heard = self._status
        return {**status.model_dump(mode="json", exclude={"spans"}), "age_s": time.monotonic() - heard}

    def answer(self) -> dict[str, Any]:
        """Its state, session and message, and for how many seconds it has been in which state since it was told."""
        with self._lock:
            now = time.monotonic()
            took = {**self._took, self.state: self._took.get(self.state, 0.0) + now - self._since}
            return {**self._state, "took": took}

    def open(self, spec: HostSpec) -> bool:
        """Tell it to serve something. Returns whether it could be told; if not, it has ended."""
        with self._lock:
            if self._ended:
                return False
            self._bound(spec)
            state = "waiting" if self._imported else self.state
            since = self._since if self.state == "waiting" else time.monotonic()
            self.spec, self._status, self._took, self._since = spec, None, {}, since
            self._state = {"state": state, "session": spec.session, "message": ""}
        self._commands.put(json.dumps({"open": spec.model_dump(mode="json")}) + "\n")
        return True

    def _bound(self, spec: HostSpec) -> None:
        if self._group is None:
            return
        from tvmpipe.runtime.device.limits import allowed_bytes

        try:
            self._group.hold(self.pid, allowed_bytes(spec, self._offered_bytes) + _IDLE_BYTES)
        except OSError as error:
            logger.warning("the stage host cannot be put into its control group: %s", error)

    def forget(self) -> None:
        """Tell one that has not come to its stages yet that nobody wants them any more."""
        with self._lock:
            self.spec = None
            self._state = {**self._state, "session": ""}
        self._commands.put(json.dumps({"forget": True}) + "\n")

    def idle_s(self) -> float:
        """For how long it has had nothing to do."""
        return time.monotonic() - self._since if self._imported and self.spec is None else 0.0

    def end(self) -> None:
        """End it, and wait until what it had done is known, if it can say so."""
        self._unwanted = True
        if self.state == "ready":
            self._commands.put(json.dumps({"close": True}) + "\n")
            with contextlib.suppress(subprocess.TimeoutExpired):  # it does not answer
                self._process.wait(deadlines.LAST_WORDS_S)
        self._process.kill()
        self._process.wait()
        self._commands.put(None)
        for thread in self._threads:
            thread.join(deadlines.LAST_WORDS_S)
        if self._group is not None:
            self._group.close()

    def _write(self) -> None:
        assert self._process.stdin is not None
        # An error: it has ended, which the other thread tells. Closing the file would try to write once more.
        with contextlib.suppress(OSError), self._process.stdin as stdin:
            while (line := self._commands.get()) is not None:
                stdin.write(line)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    self._hear(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    logger.warning("the stage host said something that is no answer")
        code = self._process.wait()
        with self._lock:
            self._ended = True
            if not self._unwanted:
                logger.warning("the stage host ended (%s)", describe_exit(code))
            if self.state not in ("failed", "expired"):
                self._advance({**self._state, "state": "failed", "message": self._why_ended(code)})
        self._commands.put(None)

    def _why_ended(self, code: int) -> str:
        if self.spec is not None and self._group is not None and self._group.exceeded:
            from tvmpipe.runtime.device.limits import allowed_bytes, exceeded

            return exceeded(self.spec, allowed_bytes(self.spec, self._offered_bytes))
        return f"the stage host ended ({describe_exit(code)})"

    def _hear(self, answer: dict[str, Any]) -> None:
        if "status" in answer:
            from tvmpipe.runtime.device.status import Status

            status = Status.model_validate(answer["status"])
            self._agent_totals.take(status)
            if status.session == self.session:
                self._status = (status, time.monotonic())
            return
        with self._lock:
            if "up" in answer:
                if answer["up"] == "imported":
                    self._imported, self._start_s = True, time.monotonic() - self._born
                    self._advance({**self._state, "state": "waiting" if self.spec is not None else "idle"})
                else:
                    self._advance({**self._state, "state": "importing"})
            # What an earlier opening ends with says nothing about the one that replaced it.
            elif answer["session"] == self.session and answer["state"] in _SAID:
                self._advance({name: str(answer[name]) for name in ("state", "session", "message")})

    def _advance(self, state: dict[str, str]) -> None:
        now = time.monotonic()
        self._took[self.state] = self._took.get(self.state, 0.0) + now - self._since
        self._state, self._since = state, now
